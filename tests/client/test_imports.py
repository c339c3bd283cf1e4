"""What an import takes out of a folder, what it leaves behind and says so, and what it will not
touch.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from registry.artifacts.bundles.names import Kind
from registry.client.mlflow_addresses import Registered, Stored, parse
from registry.client.sources import choose, without_code
from registry.errors import Invalid, RegistryError, Unverified
from tests.cli.desk import write_adapter, write_base

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def names(kind: Kind, folder: Path, *leave_out: str) -> tuple[set[str], dict[str, str]]:
    chosen = choose(kind, folder, leave_out)
    return {inside for _, inside in chosen.files}, {one.path: one.why for one in chosen.left_out}


def snapshot(root: Path) -> Path:
    """A cache as huggingface_hub lays it out: blobs by digest, a snapshot of links, a ref."""
    plain = root / "plain"
    write_base(plain)
    (plain / "README.md").write_text(
        "---\nlicense: apache-2.0\nbase_model: x\n---\n# A model\nlicense: mit\n"
    )
    model = root / "models--acme--tiny"
    folder = model / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (model / "blobs").mkdir()
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    for path in plain.iterdir():
        data = path.read_bytes()
        large = path.suffix == ".safetensors"
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        name = hashlib.sha256(data).hexdigest() if large else git
        (model / "blobs" / name).write_bytes(data)
        (folder / path.name).symlink_to(Path("../../blobs") / name)
    return model


def test_an_output_folder_of_peft_loses_what_is_no_bundle_and_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    write_adapter(folder, seed=1)
    for junk in (
        "training_args.bin",
        "optimizer.pt",
        "trainer_state.json",
        "rng_state.pth",
        ".hidden",
        "model.py",
        "notes.docx",
    ):
        (folder / junk).write_bytes(b"x")
    (folder / "checkpoint-500").mkdir()
    taken, left = names("adapter", folder)
    assert taken == {"adapter_model.safetensors", "adapter_config.json"}
    assert set(left) == {
        "training_args.bin",
        "optimizer.pt",
        "trainer_state.json",
        "rng_state.pth",
        ".hidden",
        "model.py",
        "notes.docx",
        "checkpoint-500",
    }
    assert all(left.values())


def test_weights_in_folders_are_listed_unless_the_folder_is_a_model_of_its_own(
    tmp_path: Path,
) -> None:
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    write_adapter(adapter, seed=1)
    write_base(base)
    (adapter / "runs" / "earlier").mkdir(parents=True)
    write_adapter(adapter / "runs" / "earlier" / "checkpoint-5", seed=2)
    for path in (
        adapter / "runs" / "earlier" / "checkpoint-5" / "value_head.safetensors",
        adapter / "runs" / "value_head.safetensors",
        adapter / "original" / "v_head.bin",
        adapter / ".x" / "value_head.safetensors",
        base / "2_Dense" / "model.safetensors",
        base / "1_Pooling" / "config.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    inside = {name for name in names("adapter", adapter)[1] if "/" in name}
    assert inside == {
        "runs/value_head.safetensors",
        "original/v_head.bin",
        ".x/value_head.safetensors",
    }
    inside = {name for name in names("base", base)[1] if "/" in name}
    assert inside == {"2_Dense/model.safetensors"}


SNAPSHOT = {
    "tokenizer.model": "",
    "spiece.model": "",
    "sentencepiece.bpe.model": "",
    "spm.model": "",
    "tekken.json": "",
    "vocab.txt": "",
    "vocab.json": "",
    "merges.txt": "",
    "added_tokens.json": "",
    "special_tokens_map.json": "",
    "tokenizer_config.json": "",
    "generation_config.json": "",
    "chat_template.jinja": "",
    "preprocessor_config.json": "",
    "processor_config.json": "",
    "video_preprocessor_config.json": "",
    "README.md": "",
    "LICENSE": "",
    "LICENSE-MODEL": "",
    "USE_POLICY.md": "",
    "NOTICE.md": "",
    "model-00001-of-00002.safetensors": "",
    "model-00001-of-000163.safetensors": "",
    "model.safetensors-00001-of-00002.safetensors": "",
    "model.safetensors.index.json": "",
    ".gitattributes": "hidden",
    ".cache/huggingface/download/config.json.metadata": "hidden folder",
    ".git/HEAD": "hidden folder",
    "consolidated.safetensors": "another name",
    "model.fp16.safetensors": "another name",
    "tf_model.h5": "TensorFlow",
    "64.tflite": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "rust_model.ot": "Rust",
    "pytorch_model.bin": "pickle",
    "pytorch_model.bin.index.json": "index of weights",
    "model-q4_k_m.gguf": "llama.cpp",
    "model.onnx": "ONNX",
    "onnx/model.onnx": "ONNX",
    "original/consolidated.00.pth": "makers' own",
    "params.json": "makers' own",
    "tokenizer.model.v3": "numbered name",
    "additional_chat_templates/rag.jinja": "named chat templates",
    "chat_template.json": "chat_template.jinja",
    "modeling_phi3.py": "built into transformers",
    "CODE_OF_CONDUCT.md": "for readers",
    "figures.png": "for readers",
    "Responsible-Use-Guide.pdf": "for readers",
    "1_Pooling/config.json": "pooling",
    "coreml/x": "Core ML",
    "quantize_config.json": "which config.json contains too",
    "quant_config.json": "which config.json contains too",
    "mergekit_config.yml": "not a file of a bundle",
}


@pytest.mark.parametrize("name", SNAPSHOT)
def test_of_every_file_that_snapshots_carry_it_is_said_why_it_stays_behind(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "snapshot"
    write_base(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")
    taken, left = names("base", folder)
    if SNAPSHOT[name]:
        assert SNAPSHOT[name] in left.pop(name.split("/")[0])
    else:
        assert name in taken
    assert left == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tf_model.h5", "TensorFlow"),
        ("model-q4_k_m.gguf", "llama.cpp"),
        ("consolidated.safetensors", "another name"),
        ("model.onnx", "ONNX"),
        ("model.safetensors.index.json", "none of the files that the index names"),
    ],
)
def test_weights_in_another_form_only_are_no_weights_and_the_form_is_named(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(Invalid, match=said) as refused:
        choose("base", tmp_path)
    assert refused.value.kind == "no-weights"
    assert refused.value.fix


def test_what_names_code_is_taken_out_when_asked_and_listed(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    write_base(folder)
    config = json.loads((folder / "config.json").read_text())
    plain = (folder / "config.json").read_bytes()
    (folder / "config.json").write_text(
        json.dumps(
            {
                **config,
                "auto_map": {"AutoModel": "modeling_x.X"},
                "parts": [{"auto_map": "x", "a": 1}],
            }
        )
    )
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "X", "trust_remote_code": true, "auto_map": null, "eos_token": "ü"}'
    )
    (tmp_path / "written").mkdir()
    chosen = choose("base", folder)
    without_code(chosen, tmp_path / "written")
    found = {inside: path for path, inside in chosen.files}
    assert json.loads(found["config.json"].read_text()) == json.loads(plain) | {"parts": [{"a": 1}]}
    assert json.loads(found["tokenizer_config.json"].read_text()) == {
        "tokenizer_class": "X",
        "auto_map": None,
        "eos_token": "ü",
    }
    changed = [
        "config.json: auto_map",
        "config.json: parts.auto_map",
        "tokenizer_config.json: trust_remote_code",
    ]
    assert chosen.meta["changed"] == changed
    assert [one.path for one in chosen.left_out] == changed
    assert found["model.safetensors"].parent == folder
    again = choose("base", folder)
    (folder / "config.json").write_text('{"auto_map": 1, "auto_map": 2}')
    with pytest.raises(Invalid, match="more than once"):
        without_code(again, tmp_path / "written")


def test_what_the_folder_claims_is_kept_as_a_claim(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    write_adapter(folder, seed=1)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": "x" * 600, "peft_version": 7})
    )
    (folder / "README.md").write_text("---\nlicense: 'mit'\n---\n")
    meta = choose("adapter", folder).meta
    assert meta == {
        "source": "folder:output",
        "licence": "mit",
        "claimed": {"base_model_name_or_path": "x" * 512},
    }


def test_a_snapshot_is_named_by_repository_and_commit_whichever_folder_of_it_is_given(
    tmp_path: Path,
) -> None:
    model = snapshot(tmp_path)
    for given in (model, model / "snapshots" / COMMIT):
        chosen = choose("base", given)
        assert chosen.meta == {"source": f"huggingface:acme/tiny@{COMMIT}", "licence": "apache-2.0"}
        assert {inside for _, inside in chosen.files} == {
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "README.md",
        }
        assert set(chosen.digests) == {"model.safetensors"}


def test_a_damaged_small_file_of_a_cache_is_found_at_once(tmp_path: Path) -> None:
    model = snapshot(tmp_path)
    (model / "snapshots" / COMMIT / "config.json").resolve().write_text("{}")
    with pytest.raises(Unverified, match="its cache says") as found:
        choose("base", model)
    assert found.value.kind == "snapshot-damaged"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        ("out-of-folder", "linked-file"),
        ("unfinished", "broken-link"),
        ("pickled", "weights-pickled"),
        ("deeper", "no-weights"),
        ("several", "which-snapshot"),
        ("nowhere", "no-such-folder"),
    ],
)
def test_what_cannot_be_imported_is_refused_by_name(tmp_path: Path, make: str, kind: str) -> None:
    folder = tmp_path / "output"
    if make == "out-of-folder":
        write_adapter(folder, seed=1)
        (tmp_path / "secret").write_text("secret")
        (folder / "README.md").symlink_to(tmp_path / "secret")
    elif make == "unfinished":
        folder = snapshot(tmp_path)
        (folder / "snapshots" / COMMIT / "tokenizer.json").resolve().unlink()
    elif make == "pickled":
        folder.mkdir()
        (folder / "adapter_model.bin").write_bytes(b"x")
    elif make == "deeper":
        write_adapter(folder, seed=1)
        (tmp_path / "above").mkdir()
        folder = folder.rename(tmp_path / "above" / "checkpoint-2").parent
    elif make == "several":
        folder = snapshot(tmp_path)
        (folder / "refs" / "main").unlink()
        (folder / "snapshots" / "ab").mkdir()
    with pytest.raises(Invalid) as refused:
        choose("base" if make in ("unfinished", "several") else "adapter", folder)
    assert refused.value.kind == kind
    assert refused.value.fix
    if make == "deeper":
        assert "checkpoint-2" in refused.value.fix


def test_a_file_left_out_must_be_there(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    write_adapter(folder, seed=1)
    (folder / "README.md").write_text("x")
    assert names("adapter", folder, "README.md")[1] == {"README.md": "left out as asked"}
    with pytest.raises(Invalid, match="NOTICE"):
        choose("adapter", folder, ["NOTICE"])


@pytest.mark.parametrize(
    "text",
    [
        "mlflow:",
        "mlflow:a b",
        "mlflow:run/../x",
        "mlflow:run//x",
        "mlflow:run/./x",
        "models:/claims",
        "models:/claims/latest",
        "models:/claims/0",
        "models:/",
        "runs:/",
        "models:/claims/Production",
        "models:/m-1/../x",
        "models:/claims@",
        "models:/a/1/../x",
    ],
)
def test_what_names_no_mlflow_run_is_refused(text: str) -> None:
    with pytest.raises(RegistryError) as refused:
        parse(text)
    assert refused.value.kind == "bad-mlflow-run"


def test_a_run_and_its_path(tmp_path: Path) -> None:
    assert parse("mlflow:4f1d9c") == Stored("run", "4f1d9c")
    assert parse("mlflow:4f1d9c/adapter/peft") == Stored("run", "4f1d9c", "adapter/peft")
    assert parse("runs:/4f1d9c/model") == Stored("run", "4f1d9c", "model")
    assert parse("mlflow:m-4f1d9c") == parse("models:/m-4f1d9c") == Stored("model", "m-4f1d9c")
    assert parse("models:/m-4f1d9c/peft") == Stored("model", "m-4f1d9c", "peft")
    assert parse("models:/claims/3") == Registered("claims", "3", None)
    assert parse("models:/legal claims@champion") == Registered("legal claims", None, "champion")
    assert parse(str(tmp_path)) is None


def _only(tmp_path: Path, *names: str) -> Path:
    root = tmp_path / "out"
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"{}")
    return root


@pytest.mark.parametrize(
    ("kind", "names", "why", "fix"),
    [
        (
            "adapter",
            [
                "model.safetensors",
                "config.json",
                "checkpoint-900/adapter_model.safetensors",
                "checkpoint-2390/adapter_model.safetensors",
            ],
            "checkpoint-900, checkpoint-2390",
            "countersign adapter import {root}/checkpoint-2390",
        ),
        (
            "checkpoint",
            ["adapter_model.safetensors", "merged/model.safetensors"],
            "merged",
            "countersign checkpoint import {root}/merged",
        ),
        (
            "adapter",
            ["pytorch_model.bin", "train/adapter_model.safetensors"],
            "train",
            "countersign adapter import {root}/train",
        ),
        (
            "adapter",
            [
                "v10-2026/checkpoint-8/adapter_model.safetensors",
                "v9-2026/checkpoint-900/adapter_model.safetensors",
            ],
            "v9-2026/checkpoint-900, v10-2026/checkpoint-8.",
            "countersign adapter import {root}/v10-2026/checkpoint-8",
        ),
        (
            "adapter",
            [f"checkpoint-{step}/adapter_model.safetensors" for step in range(1, 12)],
            "have: 3 others, checkpoint-4, checkpoint-5",
            "countersign adapter import {root}/checkpoint-11",
        ),
        (
            "adapter",
            ["my run/adapter_model.safetensors"],
            "have: my run.",
            "countersign adapter import '{root}/my run'",
        ),
        ("adapter", ["model.safetensors"], "of a full model", "countersign checkpoint import"),
        ("base", ["adapter_model.safetensors"], "of an adapter", "countersign adapter import"),
        ("adapter", ["adapters.safetensors"], "MLX", "mlx_lm.fuse"),
    ],
)
def test_weights_that_are_elsewhere_or_of_another_kind_are_named(
    kind: Kind, names: list[str], why: str, fix: str, tmp_path: Path
) -> None:
    root = _only(tmp_path, *names)
    with pytest.raises(Invalid) as refused:
        choose(kind, root)
    assert refused.value.kind == "no-weights"
    assert why in refused.value.detail
    assert fix.format(root=root) in refused.value.fix
