from __future__ import annotations

import ast
import io
import json
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from registry import verifier
from registry.blobs.store import Blobs
from registry.commands import recalls, rollouts
from registry.db.store import Store, open_engine
from registry.documents import canonical
from registry.proof import merkle, notes
from registry.proof.keys import SigningKey
from registry.queries import audit
from registry.rules.actors import SYSTEM
from registry.sequencer import Sequencer, Witness
from tests.build import a_world, approved
from tests.proof.judging import HEADS, KEY, Judge, ends, honest, redeclared
from tests.proof.packs import ORIGIN, Log, members, story, zipped


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


def test_an_honest_pack_is_valid(judge: Judge) -> None:
    log = story()
    root = merkle.root([merkle.leaf_hash(entry) for entry in log.entries])
    size = len(log.entries)
    assert judge(zipped(members(log, KEY, range(size)))) == {
        "ok": True,
        "events": size,
        "size": size,
        "root": f"sha256:{root.hex()}",
        "votes": 2,
        "problems": [],
    }


def test_the_pack_of_a_real_log_is_valid(
    judge: Judge, fresh_store: Store, fresh_database: str, blobs: Blobs, tmp_path: Path
) -> None:
    """What the registry itself exports after approval, canary, promotion, rollback and recall."""
    world = a_world(fresh_store, blobs, "real")
    engineer, ref = world.engineer.actor, approved(world)
    name = ref.partition("@")[0]
    rollouts.start(fresh_store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
    rollouts.promote(fresh_store, engineer, rollouts.Place(name, "production", None), "")
    rollouts.roll_back(
        fresh_store, engineer, rollouts.Place(name, "production", None), "a complaint"
    )
    rollouts.promote(
        fresh_store, engineer, rollouts.Place(name, "production", None), "it was a false alarm"
    )
    recalls.recall(fresh_store, engineer, ref, "half-trained")
    engine = open_engine(fresh_database, "countersign_sequencer")
    Sequencer(Store(engine), KEY, ORIGIN, Witness(tmp_path / "heads")).step()
    engine.dispose()
    out = io.BytesIO()
    audit.export(fresh_store, SYSTEM, notes.verifier_key(ORIGIN, KEY.public), out)
    found = judge(out.getvalue())
    assert (found["problems"], found["votes"]) == ([], 2)
    assert found["events"] > 20


def test_an_empty_log_is_valid(judge: Judge) -> None:
    assert judge(zipped(members(Log(), KEY)))["ok"]


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED]
)
def test_plain_recompression_stays_valid(judge: Judge, method: int) -> None:
    assert judge(zipped(dict(reversed(honest().items())), method))["ok"]


def test_an_archive_written_to_a_pipe_stays_valid(judge: Judge) -> None:
    class Pipe(io.RawIOBase):
        """Where nobody can seek back, so sizes stand behind the data."""

        def __init__(self) -> None:
            self.bytes = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.bytes += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in honest().items():
            pack.writestr(name, data)
    assert judge(bytes(pipe.bytes))["ok"]


def test_it_runs_as_one_copied_file(judge: Judge, tmp_path: Path) -> None:
    copy = shutil.copy(verifier.__file__, tmp_path / "check.py")
    (tmp_path / "pack.zip").write_bytes(zipped(honest()))
    (tmp_path / "bad.zip").write_bytes(b"PK, or so it says")
    for pack, code, said in (
        ("pack.zip", 0, "VALID.\n21 entries read, 2 votes"),
        ("bad.zip", 8, "NOT VALID: The"),
    ):
        done = subprocess.run(
            [sys.executable, "-I", copy, tmp_path / pack, "--key", judge.key],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (code, "")
        assert done.stdout.startswith(said)


def test_it_imports_nothing_of_ours_and_stays_short() -> None:
    source = Path(verifier.__file__).read_text()
    assert len(source.splitlines()) <= 1200
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add((node.module or "").partition(".")[0])
    assert roots - {"cryptography"} <= sys.stdlib_module_names


def test_every_check_says_what_it_prevents() -> None:
    source = Path(verifier.__file__).read_text()
    lines = source.splitlines()
    checks = [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "require"
    ]
    assert len(checks) > 50
    for number in checks:
        above = number - 1
        while lines[above - 1].strip().startswith("# ") and "Prevents: " not in lines[above - 1]:
            above -= 1
        assert "# Prevents: " in lines[above - 1], f"line {number}: {lines[number - 1]}"


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ([], ["a.zip", "b.zip"], ["a.zip", "--what"]):
        with pytest.raises(SystemExit) as ended:
            verifier.main(wrong)
        assert ended.value.code == 2


def test_it_names_the_first_bad_entry_and_the_count(judge: Judge) -> None:
    log = story()
    log.entries[3] = log.entries[3].replace(b":", b": ", 1)
    log.entries[7] = log.entries[7].replace(b":", b": ", 1)
    judge(zipped(members(log, KEY)))
    code, said = ends(judge.pack, "--key", judge.key)
    assert code == 8
    assert said.startswith("NOT VALID: Entry 3 is not canonical JSON")
    assert "problems: " in said


def test_gates_are_honestly_not_there(judge: Judge) -> None:
    judge(zipped(honest()))
    code, said = ends(judge.pack, "--key", judge.key, "--gates")
    assert code == 8
    assert "holds no gate evidence" in said


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which no key is pinned."""
    monkeypatch.delenv("COUNTERSIGN_VERIFY_KEY", raising=False)
    monkeypatch.setenv("COUNTERSIGN_HOME", str(tmp_path / "nowhere"))
    return monkeypatch


def test_the_key_comes_from_the_option_then_the_environment_then_the_home(
    judge: Judge, tmp_path: Path, bare: pytest.MonkeyPatch
) -> None:
    judge(zipped(honest()))
    home, wrong = tmp_path / "home", tmp_path / "wrong.pub"
    wrong.write_text(notes.verifier_key(ORIGIN, SigningKey.generate().public))
    code, said = ends(judge.pack)
    assert code == 8
    assert "There is no trusted log key" in said
    home.mkdir()
    shutil.copy(judge.key, home / "log.pub")
    bare.setenv("COUNTERSIGN_HOME", str(home))
    assert ends(judge.pack)[0] == 0
    bare.setenv("COUNTERSIGN_VERIFY_KEY", str(wrong))
    assert ends(judge.pack)[0] == 8
    assert ends(judge.pack, "--key", judge.key)[0] == 0
    for given in (str(judge.key), judge.key.read_text()):
        bare.setenv("COUNTERSIGN_VERIFY_KEY", given)
        assert ends(judge.pack)[0] == 0
        assert ends(judge.pack, "--key", wrong)[0] == 8
    bare.delenv("COUNTERSIGN_VERIFY_KEY")
    bare.delenv("COUNTERSIGN_HOME")
    bare.setenv("HOME", str(tmp_path))
    assert ends(judge.pack)[0] == 8
    home.rename(tmp_path / ".countersign")
    assert ends(judge.pack)[0] == 0


@pytest.mark.parametrize(
    "text",
    ["", "x" * 5000, "a\0b", "o+00000000+" + "A" * 44, "o+zz+!", ORIGIN, "ä+00000000+" + "/" * 44],
)
def test_a_key_that_is_none_is_said_to_be_none(
    judge: Judge, text: str, bare: pytest.MonkeyPatch
) -> None:
    judge(zipped(honest()))
    judge.key.write_text(text)
    code, said = ends(judge.pack, "--key", judge.key)
    assert (code, "trusted" in said) == (8, True)
    if "\0" not in text:  # no environment can hold that
        bare.setenv("COUNTERSIGN_VERIFY_KEY", text)
        code, said = ends(judge.pack)
        assert (code, "trusted" in said) == (8, True)


def test_a_log_signed_by_somebody_else_is_refused(judge: Judge) -> None:
    judge.refuses(
        zipped(members(story(), SigningKey.generate(), HEADS)), "is not signed by the trusted key"
    )
    judge.refuses(
        zipped(members(story(), KEY, HEADS, origin="countersign.local/other")),
        "The pack is of countersign",
    )


def test_one_head_of_another_key_spoils_the_pack(judge: Judge) -> None:
    found, other = honest(), members(story(), SigningKey.generate(), HEADS)
    found["tree_heads/4.note"] = other["tree_heads/4.note"]
    judge.refuses(zipped(redeclared(found)), "tree_heads/4.note is not signed by the trusted key")


def test_a_head_that_contradicts_the_entries_is_found_and_located(judge: Judge) -> None:
    """The keeper rewrote entry 6 and signed again at the end, but head 9 is out already."""
    log, before = story(), honest()
    changed = json.loads(log.entries[6])
    changed["facts"] = {"innocent": True}
    log.entries[6] = canonical.encode(changed)
    found = members(log, KEY, HEADS)
    for size in (9, 16):
        found[f"tree_heads/{size}.note"] = before[f"tree_heads/{size}.note"]
    judge.refuses(zipped(redeclared(found)), "Entries 4 to 8 are not those of tree head 9")


def test_the_heads_must_cover_every_entry(judge: Judge) -> None:
    found = honest()
    del found["tree_heads/21.note"]
    judge.refuses(zipped(redeclared(found)), "The last tree head is not over all 21 entries")


def test_the_head_of_the_empty_log_is_checked_too(judge: Judge) -> None:
    text = notes.checkpoint_text(ORIGIN, 0, b"\0" * 32)
    found = {**honest(), "tree_heads/0.note": notes.sign_note(text, ORIGIN, KEY).encode()}
    judge.refuses(zipped(redeclared(found)), "Tree head 0 has a wrong root")


def test_a_key_whose_hash_is_not_its_own_is_refused(judge: Judge) -> None:
    name, hint, key = judge.key.read_text().split("+", 2)
    judge.key.write_text(f"{name}+{int(hint, 16) ^ 1:08x}+{key}")
    judge.refuses(zipped(honest()), "The trusted key is no Ed25519 verifier key")


def test_noise_is_refused_in_one_sentence(judge: Judge) -> None:
    chance = random.Random(3)
    for size in (0, 1, 21, 22, 23, 100, 5000):
        judge.refuses(chance.randbytes(size), "The pack cannot be read")
    for path in (judge.pack.with_name("absent.zip"), judge.pack.parent):
        assert ends(path, "--key", judge.key)[0] == 8


def test_what_an_attacker_wrote_cannot_steer_the_terminal(judge: Judge) -> None:
    problems = judge(zipped({**honest(), "tree_heads/\x1b[2J.note": b""}))["problems"]
    assert "\x1b" not in problems[0]
    assert "\\x1b" in problems[0]
