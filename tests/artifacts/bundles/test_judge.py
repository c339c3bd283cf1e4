"""Bundles: what may be in them, what they are, and what is missing."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from dataclasses import asdict
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from registry.artifacts.bundles.judge import BaseFacts, File, Kind, base_facts, inspect
from registry.artifacts.bundles.names import ADAPTER, FULL
from registry.artifacts.defects import MAX_DEFECTS
from registry.documents import canonical
from registry.documents.canonical import digest, sha256_hex
from registry.errors import BundleRejected, Invalid
from tests.artifacts.bundle_files import (
    CONFIG,
    Files,
    adapter_files,
    base_arrays,
    base_files,
    broken,
    declared,
    look,
    tiny_base,
)
from tests.assets.cases import entry, packed


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
        "tensors": 7,
        "parameters": 16 * 8 + 2 * (64 + 32 + 8),
        "dtypes": {"F32": 336},
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "chat_template": {
            "source": "chat_template.jinja",
            "digest": digest({"default": hashlib.sha256(b"{{ messages }}").hexdigest()}),
            "templates": {"default": f"sha256:{hashlib.sha256(b'{{ messages }}').hexdigest()}"},
        },
    }
    assert found.base_root == digest(
        {
            "tensor_root": found.tensor_root,
            "config": hashlib.sha256(canonical.encode(CONFIG)).hexdigest(),
            "tokenizer": hashlib.sha256(files["tokenizer.json"]).hexdigest(),
            "chat_template": hashlib.sha256(b"{{ messages }}").hexdigest(),
        }
    )


def test_base_root_sees_what_changes_answers_and_nothing_else() -> None:
    root = look("base", base_files()).base_root
    pretty = base_files() | {
        "config.json": json.dumps(CONFIG, indent=4).encode(),
        "README.md": b"other",
    }
    assert look("base", pretty).base_root == root
    inside = base_files() | {
        "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}).encode()
    }
    assert (
        look("base", {k: v for k, v in inside.items() if k != "chat_template.jinja"}).base_root
        == root
    )
    for path, content in (
        ("config.json", json.dumps(CONFIG | {"rms_norm_eps": 1e-05}).encode()),
        ("tokenizer.json", b"{}"),
        ("chat_template.jinja", b"{{ messages }} "),
        (
            "model.safetensors",
            save(base_arrays() | {"model.embed_tokens.weight": np.ones((16, 8), np.float32)}),
        ),
    ):
        assert look("base", base_files() | {path: content}).base_root != root, path


def shards() -> Files:
    arrays = base_arrays()
    names = sorted(arrays)
    parts = {f"model-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {name: path for path, held in parts.items() for name in held},
    }
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
        (
            {"model.safetensors": save(base_arrays())},
            ["shards-incomplete", *REPEATED, "index-mismatch"],
        ),
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
    "pickle": ("pytorch_model.bin", zipped(), "file-not-allowed", "ZIP archive"),
    "training arguments": ("training_args.bin", pickle.dumps(1), "file-not-allowed", "pickle"),
    "gguf": ("model.gguf", b"GGUF\x03\0\0\0", "file-not-allowed", "GGUF"),
    "another case": ("ReadMe.md", b"x", "file-not-allowed", "looks like README.md"),
    "another alphabet": ("tоkenizer.json", b"{}", "file-not-allowed", "looks like tokenizer.json"),
    "a text in UTF-16": ("LICENSE", "x".encode("utf-16"), "foreign-content", "UTF-16"),
    "deep json": ("tokenizer_config.json", b"[" * 40 + b"]" * 40, "bad-json", "deeper"),
    "json twice": ("generation_config.json", b'{"a":1,"a":2}', "bad-json", "'a'"),
}


@pytest.mark.parametrize("name", ADDED)
def test_a_defect_says_what_it_found(name: str) -> None:
    """Which defects there are, of these and of hundreds more, is said in tests/assets."""
    path, content, rule, words = ADDED[name]
    found = look("base", base_files() | {path: content})
    assert broken(found) == [(path, rule)]
    assert words in found.defects[0].detail
    assert found.defects[0].fix
    assert found.base_root is None


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_what_must_be_in_a_base(path: str) -> None:
    files = base_files()
    del files[path]
    assert broken(look("base", files)) == [(path, "file-missing")]


@pytest.mark.parametrize("content", [b'"x"', b"[]", b"1", b"null"])
@pytest.mark.parametrize(
    ("kind", "path"), [("base", "config.json"), ("adapter", "adapter_config.json")]
)
def test_a_configuration_that_is_not_an_object_is_one_defect(
    kind: Kind, path: str, content: bytes
) -> None:
    files = base_files() if kind == "base" else adapter_files()
    assert broken(look(kind, files | {path: content})) == [(path, "json-object")]


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
        ("config.json", "bad-json"),
        ("model.safetensors", "foreign-content"),
        ("run.py", "file-not-allowed"),
    ]


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
            base_facts(
                declared(base_files() | {"model.safetensors": zipped()})[0], read, base_root=root
            )


def test_a_sound_adapter(base: BaseFacts) -> None:
    files = adapter_files()
    found = look(
        "adapter", files, base, domain="legal", purpose="answers", base_root=base.base_root
    )
    assert (found.defects, found.findings) == ([], [])
    assert found.base_root == base.base_root
    assert found.tensor_root
    assert found.facts == {
        "effect": {"state": "weights", "parts": 4, "idle": 0, "idle_examples": []},
        "tensors": 8,
        "parameters": 224,
        "dtypes": {"F32": 224},
        "method": "lora",
        "rank": 4,
        "alpha": 8,
        "max_rank": 4,
        "bias": "none",
        "variant": "plain",
        "targets": ["q_proj", "v_proj"],
        "trainable_parameters": 224,
        "risks": [],
        "uploaded_config": f"sha256:{sha256_hex(files['adapter_config.json'])}",
        "unbound_manifest": found.unbound_digest,
    }


def test_an_adapter_of_another_base_names_both_roots(base: BaseFacts) -> None:
    found = look("adapter", adapter_files(), base, base_root="sha256:other")
    assert broken(found) == [("adapter_config.json", "base-mismatch")]
    assert "sha256:other" in found.defects[0].detail
    assert base.base_root in found.defects[0].detail


@pytest.mark.parametrize("path", ["config.json", "generation_config.json", "training_args.bin"])
def test_an_adapter_may_not_bring_what_belongs_to_the_base(base: BaseFacts, path: str) -> None:
    assert broken(look("adapter", adapter_files() | {path: b"{}"}, base)) == [
        (path, "file-not-allowed")
    ]


@pytest.mark.parametrize("path", ["adapter_config.json", "adapter_model.safetensors"])
def test_what_must_be_in_an_adapter(base: BaseFacts, path: str) -> None:
    files = adapter_files()
    del files[path]
    assert broken(look("adapter", files, base)) == [(path, "file-missing")]


CONTENTS = [
    b"",
    b"{}",
    b"[]",
    b"\xff",
    b"x" * 20,
    zipped(),
    save(base_arrays()),
    json.dumps(CONFIG).encode(),
    b'{"a":1,"a":1}',
]
paths = (
    st.sampled_from(sorted(FULL | ADAPTER))
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "model.safetensors",
            "adapter_model.safetensors",
            "model-00001-of-00002.safetensors",
            "../x",
            "a/b",
            "README.MD",
        ]
    )
)


@settings(max_examples=150)
@given(
    st.sampled_from(["base", "adapter", "checkpoint"]),
    st.lists(
        st.tuples(
            paths,
            st.sampled_from(CONTENTS),
            st.sampled_from([0, 0, 0, 1, -1, 2**70]),
            st.booleans(),
        ),
        max_size=8,
    ),
)
def test_any_manifest_is_judged_and_nothing_but_a_named_error_leaves(
    kind: Kind, entries: list[tuple[str, bytes, int, bool]]
) -> None:
    blobs = {sha256_hex(content): content for content in CONTENTS}

    def read(sha: str, start: int, length: int) -> bytes:
        return blobs[sha][start : start + length]

    files = [
        File(path, sha256_hex(content) if there else "0" * 64, len(content) + more)
        for path, content, more, there in entries
    ]
    try:
        found = inspect(kind, files, read, base=None, meta={})
    except Invalid as error:
        if error.kind != "not-canonical":  # a size or path that no manifest can hold
            raise
        return
    assert found.defects, "none of these is a whole bundle"
    assert found.tensor_root is None
    assert found == inspect(kind, files, read, base=None, meta={})
    json.dumps([asdict(one) for one in found.defects], ensure_ascii=False).encode()


def test_a_refusal_is_bounded_and_counts_what_it_leaves_out() -> None:
    """20,000 bad tensors and 1,000 files that may not be there: a few hundred kilobytes, the same
    each time.
    """
    shards = {
        f"model-0000{n}-of-00002.safetensors": packed(
            {
                f"t{i}": entry(i * 8, i * 8 + 8, dtype="F31" if n == 1 else "F32", shape=[3])
                for i in range(20_000)
            },
            bytes(160_000),
        )
        for n in (1, 2)
    }
    files = base_files() | shards | {f"x{n}.py": b"" for n in range(900)}
    del files["model.safetensors"]
    found = look("base", files)
    assert len(found.defects) == MAX_DEFECTS + 1
    last = found.defects[-1]
    assert last.rule == "more-defects"
    assert last.detail == (
        "40401 more defects are not listed: 1 x file-missing in model.safetensors.index.json; 400 "
        "x file-not-allowed in 400 "
        "files; 20000 x tensor-dtype in model-00001-of-00002.safetensors; "
        "20000 x tensor-size in model-00002-of-00002.safetensors"
    )
    assert len(json.dumps([asdict(one) for one in found.defects])) < 300_000
    assert found.defects == look("base", files).defects


def test_what_to_do_with_a_folder_a_trainer_left_is_said_at_once() -> None:
    """`import` takes what belongs."""
    left = {"training_args.bin": b"x", "checkpoint-2/optimizer.pt": b"x"}
    fixes = {one.file: one.fix for one in look("base", base_files() | left).defects}
    assert set(fixes) == set(left)
    assert all("import" in fix for fix in fixes.values())
    [card] = look(
        "base", base_files() | {"README.md": b"![x](data:image/svg+xml;base64,AA)"}
    ).defects
    assert "--leave-out README.md" in card.fix
