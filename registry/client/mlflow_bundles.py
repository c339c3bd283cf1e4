"""Find the one bundle that an MLflow address means, and what MLflow knows of where it comes from.

MLflow 3 keeps what `log_model` logged outside of the run's own artifacts, as a logged model that
the run lists among its outputs. `log_model` writes a PEFT adapter to `peft/`, full weights to
`model/`, and the tokenizer beside them to `components/tokenizer/`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from registry.artifacts.bundles.names import ADAPTER_WEIGHTS, TOKENIZER, Kind, is_weights
from registry.artifacts.methods.configs import FILE as CONFIG
from registry.client.mlflow_addresses import MODEL_ID, Registered, Stored
from registry.client.mlflow_server import Artifact, MlflowServer
from registry.client.sources import MAX_SETTINGS_BYTES, is_whole, left_in_folders
from registry.errors import Invalid, NotFound
from registry.rules.refs import parse_ref
from registry.views.imports import LeftOut

MAX_MODELS = 100
"""Logged models of one run that are looked through."""
MAX_DATASETS = 20
MAX_CLAIM_CHARACTERS = 512
TOKENIZER_FOLDER = "components/tokenizer"
TEMPLATE = "chat_template.jinja"
UNFINISHED = {
    "LOGGED_MODEL_PENDING": "is still being logged",
    "LOGGED_MODEL_UPLOAD_FAILED": "failed to upload",
}


@dataclass(frozen=True, slots=True)
class Located:
    """A bundle in MLflow: where its folder is, its files, and what MLflow says of its origin.

    `nested` are the files in folders of that folder, which are no part of a bundle.
    """

    folder: Stored
    files: list[Artifact]
    nested: list[Artifact]
    claims: dict[str, Any] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)


def locate(server: MlflowServer, kind: Kind, address: Stored | Registered) -> Located:
    """The one bundle of this kind at an address.

    Raises NotFound when there is none, and Invalid (`which-artifact`), with the address of each,
    when there are several.
    """
    claims: dict[str, Any] = {}
    if isinstance(address, Registered):
        version = server.version(address)
        claims["registered"] = _short(f"{version.get('name')}/{version.get('version')}")
        stored = _stored(server, version, address.path)
    else:
        stored = address
    bundles = _bundles(server, kind, stored)
    if not bundles:
        required = ADAPTER_WEIGHTS if kind == "adapter" else "config.json and safetensors weights"
        raise NotFound("no-bundle", f"{stored} has no folder with {required}.")
    if len(bundles) > 1:
        names = sorted(str(bundle.folder) for bundle in bundles)
        outer = [name for name in names if not any(name.startswith(f"{each}/") for each in names)]
        shown = ", ".join(names[:10]) + (" and more" if len(names) > 10 else "")
        raise Invalid(
            "which-artifact",
            f"{stored} has several bundles: {shown}.",
            f"Name one of them, for example {outer[-1]}.",
        )
    [bundle] = bundles
    folder = bundle.folder
    run = stored.id if stored.kind == "run" else None
    if folder.kind == "model":
        claims["model"] = folder.id
        run = run or server.model(folder.id).get("source_run_id")
    datasets: list[str] = []
    if run:
        known = server.run(run)
        claims |= {"run": run, "experiment": str(known["info"].get("experiment_id", ""))}
        inputs = list(_inputs(known))
        if inputs:
            claims["datasets"] = [shown for shown, _ in inputs]
        datasets = [ref for _, ref in inputs if ref]
    claims["artifact"] = folder.path or "."
    return replace(bundle, claims=claims, datasets=datasets)


def left_out_below(
    server: MlflowServer, kind: Kind, located: Located, leave_out: Collection[str]
) -> list[LeftOut]:
    """What is left out below a bundle's folder, as it is for a folder on this machine."""
    root = located.folder.path or "."
    nested = {str(PurePosixPath(file.path).relative_to(root)): file for file in located.nested}

    def whole(folder: str) -> bool:
        """Whether it holds a model of its own, by the settings that MLflow has of it."""
        with tempfile.TemporaryDirectory(prefix="countersign-import-") as into:
            for name in (CONFIG, "config.json"):
                file = nested.get(f"{folder}/{name}")
                if file is not None and file.size <= MAX_SETTINGS_BYTES:
                    server.fetch(located.folder, file, Path(into))
            return is_whole(Path(into))

    sizes = {path: file.size for path, file in nested.items()}
    return left_in_folders(kind, sizes, whole, leave_out)


def _stored(server: MlflowServer, version: dict[str, Any], path: str | None) -> Stored:
    """Where the artifacts of a registered model's version are."""
    source, run = str(version.get("source") or ""), str(version.get("run_id") or "")
    model = str(version.get("model_id") or "") or source.removeprefix("models:/")
    if MODEL_ID.fullmatch(model):
        return Stored("model", model, path)
    if run:
        root = str(server.run(run)["info"].get("artifact_uri", ""))
        for prefix in (f"runs:/{run}/", f"{root}/"):
            if source.startswith(prefix):
                inside = "/".join(
                    [source.removeprefix(prefix).strip("/"), *([path] if path else [])]
                )
                return Stored("run", run, inside)
    raise NotFound(
        "no-bundle",
        f"MLflow registered this version from '{_short(source)}', which is neither a run nor a "
        "logged model.",
        "Download it (mlflow artifacts download), and import the folder.",
    )


def _bundles(server: MlflowServer, kind: Kind, stored: Stored) -> list[Located]:
    """The bundle of a kind at an address, or else every one below it."""
    if stored.kind == "model":
        _must_be_finished(server, stored)
    bundles = _folders(server, kind, stored)
    if named := _named(bundles, stored):
        return named
    if stored.kind == "run":
        for model, inside in _outputs(server, stored):
            output = Stored("model", model, inside)
            logged = _folders(server, kind, output)
            bundles += (_named(logged, output) if stored.path else []) or logged
    return bundles


def _named(bundles: list[Located], stored: Stored) -> list[Located]:
    """The bundle in the named folder itself, whatever other bundles its subfolders contain."""
    folder = replace(stored, path=stored.path or ".")
    return [bundle for bundle in bundles if bundle.folder == folder]


def _outputs(server: MlflowServer, run: Stored) -> Iterator[tuple[str, str | None]]:
    """The logged models of a run that its path may name, each with the path inside of it."""
    outputs = server.run(run.id).get("outputs", {}).get("model_outputs", [])
    models = list(dict.fromkeys(str(output.get("model_id")) for output in outputs))
    if len(models) > MAX_MODELS:
        raise Invalid(
            "too-many-artifacts",
            f"{run} logged {len(models)} models, and {MAX_MODELS} are looked through.",
            "Name one of them: models:/m-...",
        )
    name, _, inside = (run.path or "").partition("/")
    for model in models:
        if not MODEL_ID.fullmatch(model):
            continue
        try:
            info = server.model(model)
        except NotFound:
            continue  # it was deleted after the run
        if info.get("status") in UNFINISHED:
            continue
        if run.path is None or info.get("name") == name:
            yield model, inside or None


def _must_be_finished(server: MlflowServer, model: Stored) -> None:
    if why := UNFINISHED.get(str(server.model(model.id).get("status"))):
        raise Invalid("mlflow-model-unfinished", f"The logged model {model.id} {why}.")


def _folders(server: MlflowServer, kind: Kind, stored: Stored) -> list[Located]:
    """Each folder below an address that is a bundle of a kind."""
    folders: dict[str, list[Artifact]] = {}
    for file in server.files(stored):
        folders.setdefault(str(PurePosixPath(file.path).parent), []).append(file)
    bundles = []
    for folder, files in folders.items():
        if _is_bundle(kind, files):
            beside = folders.get(str(PurePosixPath(folder).parent / TOKENIZER_FOLDER), [])
            taken = dict.fromkeys([*files, *_missing(files, beside)])
            nested = [
                file
                for other, inside in folders.items()
                if PurePosixPath(folder) in PurePosixPath(other).parents
                for file in inside
                if file not in taken
            ]
            bundles.append(Located(replace(stored, path=folder), list(taken), nested))
    return bundles


def _missing(files: list[Artifact], beside: list[Artifact]) -> list[Artifact]:
    """The files of the tokenizer that `log_model` keeps apart from the weights."""
    names = {PurePosixPath(file.path).name for file in files}
    return [
        file
        for file in beside
        if (name := PurePosixPath(file.path).name) not in names and name in TOKENIZER | {TEMPLATE}
    ]


def _is_bundle(kind: Kind, files: list[Artifact]) -> bool:
    names = {PurePosixPath(file.path).name for file in files}
    if kind == "adapter":
        return ADAPTER_WEIGHTS in names
    return "config.json" in names and any(is_weights(kind, name) for name in names)


def _inputs(run: dict[str, Any]) -> Iterator[tuple[dict[str, str], str | None]]:
    """The data sets that a run names as its inputs, each with its reference if it is one of ours.

    The trainer logs a data set with the source type `countersign` and its reference.
    """
    for entry in run.get("inputs", {}).get("dataset_inputs", [])[:MAX_DATASETS]:
        dataset = entry.get("dataset", {})
        shown = {
            key: _short(dataset[key])
            for key in ("name", "digest", "source_type")
            if isinstance(dataset.get(key), str)
        }
        yield shown, _our_ref(dataset)


def _our_ref(dataset: dict[str, Any]) -> str | None:
    if dataset.get("source_type") != "countersign":
        return None
    try:
        ref = str(json.loads(dataset.get("source", ""))["ref"]).removeprefix("dataset:")
        return ref if parse_ref(ref).number is not None else None
    except (ValueError, KeyError, TypeError, Invalid):
        return None


def _short(text: object) -> str:
    return str(text)[:MAX_CLAIM_CHARACTERS]
