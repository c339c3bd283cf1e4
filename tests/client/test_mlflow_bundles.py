"""Which bundle an MLflow address means, what below its folder counts, and what MLflow is asked.

MLflow's own server answers in tests/trainer/test_imports.py; here its routes answer from memory.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import pytest

from registry.artifacts.bundles.names import Kind
from registry.client.mlflow_addresses import parse
from registry.client.mlflow_bundles import Located, left_out_below, locate
from registry.client.mlflow_server import MlflowServer
from registry.client.sources import choose
from registry.errors import Invalid, NotFound, RegistryError

RUN, MODEL = "r1", "m-1"
CONFIG = b'{"model_type": "llama"}'
ADAPTER = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}"}
FULL = {"model.safetensors": b"weights", "config.json": CONFIG}
DENSE = {"model.safetensors": b"dense", "config.json": b'{"in_features": 4}'}


def at(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


class Memory:
    """The routes of MLflow that an import asks: one run, one logged model, and their artifacts."""

    def __init__(
        self,
        run: dict[str, bytes] | None = None,
        model: dict[str, bytes] | None = None,
        status: str = "LOGGED_MODEL_READY",
    ) -> None:
        self.files = {RUN: run or {}, MODEL: model or {}}
        self.status = status
        self.asked: Counter[str] = Counter()
        self.server = MlflowServer("http://127.0.0.1:1")
        self.server._http.close()
        self.server._http = httpx.Client(
            base_url="http://127.0.0.1:1", transport=httpx.MockTransport(self._answer)
        )

    def locate(self, source: str, kind: Kind = "adapter") -> Located:
        address = parse(source)
        assert address is not None
        return locate(self.server, kind, address)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        route = request.url.path.partition("/mlflow/")[2] or request.url.path
        self.asked[route] += 1
        asked = request.url.params
        if route == "runs/get":
            outputs = {"model_outputs": [{"model_id": MODEL}]} if self.files[MODEL] else {}
            return httpx.Response(200, json={"run": {"info": {}, "outputs": outputs}})
        if route == f"logged-models/{MODEL}":
            info = {"name": "claims", "status": self.status, "source_run_id": RUN}
            return httpx.Response(200, json={"model": {"info": info}})
        if route == "artifacts/list":
            return self._listed(RUN, asked.get("path", ""))
        if route == f"logged-models/{MODEL}/artifacts/directories":
            return self._listed(MODEL, asked.get("artifact_directory_path", ""))
        if route == "/get-artifact":
            return httpx.Response(200, content=self.files[RUN][asked["path"]])
        assert route == f"logged-models/{MODEL}/artifacts/files", route
        return httpx.Response(200, content=self.files[MODEL][asked["artifact_file_path"]])

    def _listed(self, owner: str, folder: str) -> httpx.Response:
        entries: dict[str, dict[str, Any]] = {}
        for path, data in self.files[owner].items():
            if folder and not path.startswith(f"{folder}/"):
                continue
            depth = len(PurePosixPath(folder).parts)
            parts = PurePosixPath(path).parts
            inside = "/".join(parts[: depth + 1])
            size = len(data) if len(parts) == depth + 1 else None
            entries[inside] = {"path": inside, "is_dir": size is None, "file_size": size}
        return httpx.Response(200, json={"files": list(entries.values())})


LAYOUTS: list[tuple[Kind, dict[str, bytes], tuple[str, ...]]] = [
    ("base", {**FULL, **at("2_Dense", DENSE), **at("1_Pooling", {"config.json": b"{}"})}, ()),
    ("base", {**FULL, **at("2_Dense", DENSE), **at("deep/score", DENSE)}, ("2_Dense",)),
    ("adapter", {**ADAPTER, **at("value_head", DENSE)}, ()),
    ("adapter", {**ADAPTER, **at("a/b/value_head", {"x.bin": b"x"})}, ("a",)),
    ("adapter", {**ADAPTER, **at("whole", FULL), **at("whole/score", {"x.bin": b"x"})}, ()),
    ("adapter", {**ADAPTER, **at("runs/old", ADAPTER), **at("runs/old/v_head", DENSE)}, ()),
    ("adapter", {**ADAPTER, **at(".x", {"v_head.bin": b"x"}), **at("onnx", {"x": b""})}, ()),
    ("adapter", ADAPTER, ()),
]


@pytest.mark.parametrize(("kind", "files", "leave_out"), LAYOUTS)
@pytest.mark.parametrize(
    ("source", "folder"), [("mlflow:r1", ""), ("models:/m-1/out/put", "out/put/")]
)
def test_below_a_bundle_the_same_is_left_out_as_in_a_folder(
    kind: Kind,
    files: dict[str, bytes],
    leave_out: tuple[str, ...],
    source: str,
    folder: str,
    tmp_path: Path,
) -> None:
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    stored = {folder + name: data for name, data in files.items()}
    memory = Memory(run=stored) if source == "mlflow:r1" else Memory(model=stored)
    located = memory.locate(source, kind)
    local = choose(kind, tmp_path, leave_out)
    assert {PurePosixPath(file.path).name for file in located.files} == {
        inside for _, inside in local.files
    }
    left = left_out_below(memory.server, kind, located, leave_out)
    assert sorted(left, key=str) == sorted(local.left_out, key=str)


def test_the_tokenizer_that_log_model_keeps_in_a_folder_is_not_also_left_out() -> None:
    tokenizer = at("components/tokenizer", {"tokenizer.json": b"{}", "notes.txt": b""})
    memory = Memory(model={**ADAPTER, **tokenizer})
    located = memory.locate("models:/m-1")
    assert "components/tokenizer/tokenizer.json" in {file.path for file in located.files}
    assert [file.path for file in located.nested] == ["components/tokenizer/notes.txt"]


def several(memory: Memory, source: str) -> list[str]:
    """The addresses that a refusal lists; the example is one of them."""
    with pytest.raises(Invalid) as refused:
        memory.locate(source)
    assert refused.value.kind == "which-artifact"
    names = refused.value.detail.partition(" has several bundles: ")[2].removesuffix(".")
    listed = names.split(", ")
    example = refused.value.fix.partition("for example ")[2].removesuffix(".")
    assert example in listed
    assert not any(example.startswith(f"{name}/") for name in listed)
    return listed


@pytest.mark.parametrize(
    ("source", "run", "model"),
    [
        ("models:/m-1", {}, {**at("peft", ADAPTER), **at("peft/old", ADAPTER)}),
        ("mlflow:r1/claims", {}, {**at("peft", ADAPTER), **at("peft/old", ADAPTER)}),
        ("mlflow:r1", {**at("a", ADAPTER), **at("a/b", ADAPTER)}, {**at("peft", ADAPTER)}),
        ("mlflow:r1", at("a", ADAPTER), ADAPTER),
        ("mlflow:r1", at("a", ADAPTER), {**ADAPTER, **at("peft", ADAPTER)}),
    ],
)
def test_each_address_that_a_refusal_lists_names_that_bundle(
    source: str, run: dict[str, bytes], model: dict[str, bytes]
) -> None:
    memory = Memory(run, model)
    for name in several(memory, source):
        assert str(memory.locate(name).folder) == name


NESTED = {**at("peft", ADAPTER), **at("peft/old", ADAPTER)}


@pytest.mark.parametrize(
    ("source", "folder", "run", "model"),
    [
        ("mlflow:r1", "mlflow:r1", {**ADAPTER, **at("a", ADAPTER)}, at("peft", ADAPTER)),
        ("models:/m-1", "models:/m-1", {}, {**ADAPTER, **at("peft", ADAPTER)}),
        ("models:/m-1/peft", "models:/m-1/peft", {}, NESTED),
        ("mlflow:r1/claims/peft", "models:/m-1/peft", {}, NESTED),
        ("mlflow:r1/claims", "models:/m-1", {}, {**ADAPTER, **at("peft", ADAPTER)}),
        ("mlflow:r1/peft", "mlflow:r1/peft", NESTED, {}),
    ],
)
def test_the_named_folder_itself_wins(
    source: str, folder: str, run: dict[str, bytes], model: dict[str, bytes]
) -> None:
    located = Memory(run, model).locate(source)
    assert str(located.folder) == folder
    assert located.nested


@pytest.mark.parametrize("source", ["mlflow:r1", "models:/m-1"])
def test_a_run_and_a_model_are_asked_for_once(source: str) -> None:
    memory = Memory(model=at("peft", ADAPTER))
    assert memory.locate(source).claims["run"] == RUN
    assert memory.asked["runs/get"] == memory.asked[f"logged-models/{MODEL}"] == 1


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("LOGGED_MODEL_PENDING", "is still being logged"),
        ("LOGGED_MODEL_UPLOAD_FAILED", "failed to upload"),
    ],
)
def test_an_unfinished_model_is_refused_before_it_is_listed(status: str, why: str) -> None:
    memory = Memory(model=at("peft", ADAPTER), status=status)
    with pytest.raises(RegistryError) as refused:
        memory.locate("models:/m-1")
    assert refused.value.kind == "mlflow-model-unfinished"
    assert refused.value.detail == f"The logged model m-1 {why}."
    assert dict(memory.asked) == {f"logged-models/{MODEL}": 1}
    with pytest.raises(NotFound):
        memory.locate("mlflow:r1")
