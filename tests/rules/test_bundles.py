"""Bundles: what may be in them, what they are, and what is missing."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from io import BytesIO

import numpy as np
import pytest
from safetensors.numpy import save

from registry.errors import BundleRejected
from registry.rules.bundles import BaseFacts, File, Kind, base_facts, inspect
from registry.rules.documents import canonical, digest, sha256_hex
from tests.rules.bundle_files import (
    CONFIG,
    Files,
    adapter_files,
    base_arrays,
    base_files,
    broken,
    declared,
    look,
    lora_arrays,
    tiny_base,
)


@pytest.fixture(scope="module")
def base() -> BaseFacts:
    return tiny_base()


def test_a_sound_base() -> None:
    files = base_files()
    found = look("base", files, licence="Apache-2.0", source="made here")
    assert found.defects == []
    assert found.findings == []
    assert [entry["path"] for entry in found.manifest] == sorted(files)
    assert found.manifest_digest == digest(found.manifest)
    assert found.facts == {
        "tensors": 7, "parameters": 16 * 8 + 2 * (64 + 32 + 8), "dtypes": {"F32": 336},
        "architecture": "LlamaForCausalLM", "model_type": "llama",
    }  # fmt: skip
    assert found.base_root == digest({
        "tensor_root": found.tensor_root,
        "config": hashlib.sha256(canonical(CONFIG)).hexdigest(),
        "tokenizer": hashlib.sha256(files["tokenizer.json"]).hexdigest(),
        "chat_template": hashlib.sha256(b"{{ messages }}").hexdigest(),
    })  # fmt: skip


def test_base_root_sees_what_changes_answers_and_nothing_else() -> None:
    root = look("base", base_files()).base_root
    pretty = base_files() | {"config.json": json.dumps(CONFIG, indent=4).encode(), "README.md": b"other"}
    assert look("base", pretty).base_root == root
    inside = base_files() | {"tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}).encode()}
    assert look("base", {k: v for k, v in inside.items() if k != "chat_template.jinja"}).base_root == root
    for path, content in (
        ("config.json", json.dumps(CONFIG | {"rms_norm_eps": 1e-05}).encode()),
        ("tokenizer.json", b"{}"),
        ("chat_template.jinja", b"{{ messages }} "),
        ("model.safetensors", save(base_arrays() | {"model.embed_tokens.weight": np.ones((16, 8), np.float32)})),
    ):
        assert look("base", base_files() | {path: content}).base_root != root, path


def shards() -> Files:
    arrays = base_arrays()
    names = sorted(arrays)
    parts = {f"model-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
    index = {"metadata": {"total_size": 1}, "weight_map": {name: path for path, held in parts.items() for name in held}}
    files = {path: save({name: arrays[name] for name in held}) for path, held in parts.items()}
    whole = {path: content for path, content in base_files().items() if path != "model.safetensors"}
    return whole | files | {"model.safetensors.index.json": json.dumps(index).encode()}


def test_shards_have_the_root_of_the_whole() -> None:
    found = look("checkpoint", shards())
    assert found.defects == []
    assert found.tensor_root == look("base", base_files()).tensor_root
    assert found.base_root == look("base", base_files()).base_root


REPEATED = ["duplicate-tensor"] * 7


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"model-00002-of-00002.safetensors": None}, ["shards-incomplete", "index-mismatch"]),
        ({"model.safetensors.index.json": None}, ["file-missing"]),
        ({"model.safetensors": save(base_arrays())}, ["shards-incomplete", *REPEATED, "index-mismatch"]),
        ({"model.safetensors.index.json": b'{"weight_map":{}}'}, ["index-mismatch"]),
        ({"model.safetensors.index.json": b"[]"}, ["index-mismatch"]),
    ],
)
def test_shards_must_be_one_whole_set(change: dict[str, bytes | None], rules: list[str]) -> None:
    files = {path: content for path, content in (shards() | change).items() if content is not None}
    assert [rule for _, rule in broken(look("base", files))] == rules


def zipped() -> bytes:
    held = BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return held.getvalue()


ADDED: dict[str, tuple[str, bytes, str, str]] = {
    "hidden": (".env", b"x", "unsafe-path", ""),
    "parent": ("../config.json", b"{}", "unsafe-path", ""),
    "hidden folder": ("a/.git/config", b"{}", "unsafe-path", ""),
    "absolute": ("/etc/passwd", b"{}", "unsafe-path", ""),
    "backslash": ("a\\b.json", b"{}", "unsafe-path", ""),
    "folder": ("sub/config.json", b"{}", "file-not-allowed", ""),
    "code": ("modeling_x.py", b"import os", "file-not-allowed", ""),
    "pickle": ("pytorch_model.bin", zipped(), "file-not-allowed", "ZIP archive"),
    "training arguments": ("training_args.bin", pickle.dumps(1), "file-not-allowed", "pickle"),
    "gguf": ("model.gguf", b"GGUF\x03\0\0\0", "file-not-allowed", "GGUF"),
    "adapter weights in a base": ("adapter_model.safetensors", save(lora_arrays()), "file-not-allowed", ""),
    "pickle as a text": ("README.md", pickle.dumps("x"), "foreign-content", "pickle"),
    "bytes as a text": ("LICENSE", b"\xff\xfe\x00", "not-text", "UTF-8"),
    "long text": ("README.md", b"x" * (1 << 20) + b"x", "file-too-large", "at most"),
    "long json": ("generation_config.json", b'"' + b"x" * (1 << 20) + b'"', "file-too-large", "at most"),
    "json twice": ("generation_config.json", b'{"a":1,"a":2}', "bad-json", "'a'"),
    "deep json": ("tokenizer_config.json", b"[" * 40 + b"]" * 40, "bad-json", "deeper"),
    "zip as weights": ("model.safetensors", zipped(), "foreign-content", "ZIP archive"),
    "pickle as weights": ("model.safetensors", pickle.dumps([1] * 30), "foreign-content", "pickle"),
    "gguf as weights": ("model.safetensors", b"GGUF" + bytes(40), "foreign-content", "GGUF"),
    "hdf5 as weights": ("model.safetensors", b"\x89HDF\r\n\x1a\n" + bytes(40), "foreign-content", "HDF5"),
    "empty weights": ("model.safetensors", b"", "too-short", ""),
    "config list": ("config.json", b"[]", "json-object", ""),
    "config of no type": ("config.json", b'{"architectures":["X"]}', "config-value", "model_type"),
    "config of no class": ("config.json", b'{"model_type":"llama"}', "config-value", "architectures"),
    "remote code": ("config.json", json.dumps(CONFIG | {"auto_map": {"AutoModel": "x.Y"}}).encode(), "remote-code", ""),
    "remote tokenizer": ("tokenizer_config.json", b'{"auto_map":{"AutoTokenizer":["x.Y",null]}}', "remote-code", ""),
    "config too large a number": (
        "config.json", json.dumps(CONFIG | {"vocab_size": 2**60}).encode(), "not-canonical", ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ADDED)
def test_what_may_not_be_in_a_base(name: str) -> None:
    path, content, rule, words = ADDED[name]
    found = look("base", base_files() | {path: content})
    assert broken(found) == [(path, rule)]
    assert words in found.defects[0].detail
    assert found.defects[0].mend
    assert found.base_root is None


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_what_must_be_in_a_base(path: str) -> None:
    files = base_files()
    del files[path]
    assert broken(look("base", files)) == [(path, "file-missing")]


def test_a_header_that_begins_like_a_pickle_is_still_safetensors() -> None:
    """640 and 35,615 as little-endian lengths are the first bytes of a pickle and of gzip."""
    for wanted in (0x0280, 0x8B1F):
        content = save(base_arrays())
        length = int.from_bytes(content[:8], "little")
        padded = wanted.to_bytes(8, "little") + content[8 : 8 + length].ljust(wanted) + content[8 + length :]
        if wanted < length:  # too small for this header: one short tensor instead
            text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(wanted)
            padded = wanted.to_bytes(8, "little") + text + b"x"
        assert look("base", base_files() | {"model.safetensors": padded}).defects == []


def test_declared_files_are_checked_against_the_store() -> None:
    listed, read = declared(base_files())
    weights = next(file for file in listed if file.path == "model.safetensors")
    for wrong, rule in (
        (File(weights.path, "0" * 64, weights.size), "bytes-missing"),
        (File(weights.path, weights.sha256, weights.size + 1), "bytes-short"),
        (File(weights.path, weights.sha256, weights.size - 1), "bytes-more"),
        (File(weights.path, "F" * 64, weights.size), "bad-digest"),
        (File(weights.path, weights.sha256, -1), "bad-digest"),
    ):
        files = [wrong if file is weights else file for file in listed]
        found = inspect("base", files, read, base=None, meta={})
        assert found.defects[0].rule == rule
        assert found.tensor_root is None
    twice = inspect("base", [*listed, weights], read, base=None, meta={})
    assert ("model.safetensors", "duplicate-path") in broken(twice)
    many = [File(f"x{i}", "0" * 64, 1) for i in range(1025)]
    assert ("", "too-many-files") in broken(inspect("base", many, read, base=None, meta={}))


def test_bytes_that_vanish_while_read_are_a_defect() -> None:
    listed, read = declared(base_files())
    weights = next(file for file in listed if file.path == "model.safetensors")

    def cut(sha: str, start: int, length: int) -> bytes:
        whole = sha != weights.sha256 or start in (0, 8) or start >= weights.size - 1
        return read(sha, start, length) if whole else b""

    found = inspect("base", listed, cut, base=None, meta={})
    assert broken(found) == [("model.safetensors", "bytes-short")]


def test_all_defects_are_listed_at_once() -> None:
    files = base_files() | {"model.safetensors": zipped(), "run.py": b"", "config.json": b"{"}
    assert sorted(broken(look("base", files))) == [
        ("config.json", "bad-json"), ("model.safetensors", "foreign-content"), ("run.py", "file-not-allowed"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("base", ["licence", "source"]),
        ("adapter", ["base", "domain", "purpose"]),
        ("checkpoint", ["licence", "purpose"]),
    ],
)
def test_missing_descriptions_are_findings_not_defects(kind: Kind, missing: list[str]) -> None:
    found = look(kind, adapter_files() if kind == "adapter" else base_files(), licence=" ")
    assert found.defects == []
    assert [finding.field for finding in found.findings] == missing


def test_base_facts(base: BaseFacts) -> None:
    found = look("base", base_files())
    assert base.base_root == found.base_root
    assert base.shapes["model.layers.1.self_attn.v_proj.weight"] == (4, 8)
    listed, read = declared(base_files())
    assert base_facts(listed, read, base_root="sha256:known").base_root == "sha256:known"
    for root in (None, "sha256:known"):
        with pytest.raises(BundleRejected):
            base_facts(declared(base_files() | {"model.safetensors": zipped()})[0], read, base_root=root)


def test_a_sound_adapter(base: BaseFacts) -> None:
    files = adapter_files()
    found = look("adapter", files, base, domain="legal", purpose="answers", base_root=base.base_root)
    assert (found.defects, found.findings) == ([], [])
    assert found.base_root == base.base_root
    assert found.tensor_root
    assert found.facts == {
        "tensors": 8, "parameters": 224, "dtypes": {"F32": 224}, "method": "lora", "rank": 4, "alpha": 8,
        "max_rank": 4, "bias": "none", "variant": "plain", "targets": ["q_proj", "v_proj"], "trainable_parameters": 224,
        "risks": [], "uploaded_config": f"sha256:{sha256_hex(files['adapter_config.json'])}",
        "unbound_manifest": found.unbound_digest,
    }  # fmt: skip


def test_an_adapter_of_another_base_names_both_roots(base: BaseFacts) -> None:
    found = look("adapter", adapter_files(), base, base_root="sha256:other")
    assert broken(found) == [("adapter_config.json", "base-mismatch")]
    assert "sha256:other" in found.defects[0].detail
    assert base.base_root in found.defects[0].detail


@pytest.mark.parametrize("path", ["tokenizer.json", "config.json", "chat_template.jinja", "training_args.bin"])
def test_an_adapter_may_not_bring_what_belongs_to_the_base(base: BaseFacts, path: str) -> None:
    assert broken(look("adapter", adapter_files() | {path: b"{}"}, base)) == [(path, "file-not-allowed")]


@pytest.mark.parametrize("path", ["adapter_config.json", "adapter_model.safetensors"])
def test_what_must_be_in_an_adapter(base: BaseFacts, path: str) -> None:
    files = adapter_files()
    del files[path]
    assert broken(look("adapter", files, base)) == [(path, "file-missing")]
