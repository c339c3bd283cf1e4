"""Which registry, as whom: stored sign-ins, keys, and files that hold mappings."""

from __future__ import annotations

import io
import re
import stat
import sys
from pathlib import Path

import pytest

from registry.cli.session import document
from registry.errors import Invalid
from tests.cli.conftest import Run
from tests.client.test_transport import ME
from tests.client.wire import Answer, Wire, playing, problem


def sign_in(
    wire: Wire, cli: Run, monkeypatch: pytest.MonkeyPatch, token: str = "stored-token"
) -> None:
    monkeypatch.delenv("COUNTERSIGN_URL", raising=False)
    monkeypatch.delenv("COUNTERSIGN_TOKEN", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO(token + "\n"))
    wire.script = lambda seen: Answer(200, ME if seen.path.endswith("/me") else [])
    result = cli("login", wire.url + "/", "--token-stdin", "--json")
    assert result.code == 0, result.err
    assert token not in result.out + result.err


def test_login_is_kept_for_its_owner_alone(
    wire: Wire, cli: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(wire, cli, monkeypatch)
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
    assert stat.S_IMODE((config / "login.json").stat().st_mode) == 0o600
    assert [path.name for path in config.iterdir()] == ["login.json"]
    assert cli("status", "--json").json() == []
    assert wire.seen[-1].headers["Authorization"] == "Bearer stored-token"


def test_a_token_that_does_not_work_is_not_kept(
    wire: Wire, cli: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("wrong\n"))
    wire.script = lambda _: problem(401, "unauthenticated")
    assert cli("login", wire.url, "--token-stdin").code == 4
    assert not config.exists()


def test_login_never_waits_for_an_answer_nobody_can_give(
    wire: Wire, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    result = cli("login", wire.url)
    assert result.code == 2
    assert "--token-stdin" in result.err


def test_the_environment_wins_over_the_stored_sign_in(
    wire: Wire, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(wire, cli, monkeypatch)
    monkeypatch.setenv("COUNTERSIGN_TOKEN", "from-the-environment")
    cli("status")
    assert wire.seen[-1].headers["Authorization"] == "Bearer from-the-environment"


def test_a_stored_token_never_goes_to_another_registry(
    wire: Wire, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(wire, cli, monkeypatch)
    with playing() as other:
        monkeypatch.setenv("COUNTERSIGN_URL", other.url)
        assert cli("status").code == 4
        assert other.seen == []


def test_a_damaged_login_file_says_so(cli: Run, config: Path) -> None:
    config.mkdir()
    (config / "login.json").write_text("{")
    result = cli("status")
    assert result.code == 2
    assert "Sign in again" in result.err


def test_a_vote_without_a_key_names_the_mend_and_asks_nobody(wire: Wire, cli: Run) -> None:
    result = cli("review", "approve", 7, "--reason", "fine", "--json")
    assert result.code == 5
    assert result.problem()["kind"] == "no-signing-key"
    assert "countersign key enroll" in result.problem()["fix"]
    assert wire.seen == []


def test_a_document_is_a_mapping_of_json_values(tmp_path: Path) -> None:
    path = tmp_path / "meta.yaml"
    path.write_text("retention: 2027-01-31\nrows: 3\nlicence: {name: CC-BY-4.0}\n")
    assert document(path) == {
        "retention": "2027-01-31",
        "rows": 3,
        "licence": {"name": "CC-BY-4.0"},
    }
    assert document(None) == {}
    for text in (
        "- a\n- list\n",
        "a: [",
        "",
        "!!python/object/apply:os.system ['true']",
        "a: .inf",
        "a: .nan",
        'a: "\\ud800"',
        "a: &a {b: *a}",
        "a: !!timestamp 2026-99-99",
        "a: 12e4567",
        "[" * 3000,
        "!!map [1, 2]",
        "a: !!map [1]",
        "? [a]\n: b",
        "!!set {a, b}",
    ):
        path.write_text(text)
        with pytest.raises(Invalid):
            document(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("licence: mit\npurpose: x\nlicence: other\n", "'licence' on line 3 is already on line 1"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "'b' on line 4 is already on line 2"),
        ("a: {b: 1, b: 2}\n", "'b' on line 1 is already on line 1"),
        ("a:\n- {x: 1}\n- {y: 1,\n   y: 2}\n", "'y' on line 4 is already on line 3"),
        ("1: a\n'1': b\n", "'1' on line 2 is already on line 1"),
        ("True: a\n'true': b\n", "'true' on line 2 is already on line 1"),
        ("a: &x 1\nb: *x\n", "line 1 has an anchor"),
        ("a: {b: 1}\n<<: {c: 2}\n", "line 2 has a merge key"),
    ],
)
def test_yaml_with_two_meanings_is_refused_with_the_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "meta.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=re.escape(said)) as refused:
        document(path)
    assert refused.value.kind == "bad-yaml"


def test_a_recipe_says_numbers_and_texts_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("learning_rate: 1e-4\nretention: yes\nsource: 2026-11-30\ncommit: '12e4567'\n")
    assert document(path) == {
        "learning_rate": 1e-4,
        "retention": "yes",
        "source": "2026-11-30",
        "commit": "12e4567",
    }
    path.write_text("commit: 12e4567\n")
    with pytest.raises(Invalid, match="quotes around it"):
        document(path)
