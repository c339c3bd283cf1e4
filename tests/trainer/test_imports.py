"""An adapter that a real MLflow server holds, imported into a real registry."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from registry.client import Countersign, NewVersion, Origin
from registry.errors import BundleRejected, Invalid, NotFound
from tests.build import ADAPTER_META, BASE_META, DATA_META, dataset_bytes
from tests.cli.desk import write_adapter, write_base
from tests.trainer.live import Live
from tests.trainer.test_tracking import server

__all__ = ["server"]


@pytest.mark.slow
def test_the_artifacts_of_a_run_become_a_version(
    server: str, fresh_database: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    log = MlflowClient(server)
    run = log.create_run(log.create_experiment("claims")).info.run_id
    write_adapter(tmp_path / "adapter", seed=5)
    (tmp_path / "adapter" / "training_args.bin").write_bytes(b"\x80\x04.")
    log.log_artifacts(run, str(tmp_path / "adapter"), "model/peft")
    log.log_text(run, "not a bundle", "notes/readme.txt")
    write_base(tmp_path / "base")
    registry = Live(tmp_path / "home", fresh_database)
    try:
        with Countersign(registry.url, registry.engineer) as client:
            client.add("base", tmp_path / "base", NewVersion("acme/tiny", meta=BASE_META))
            described = NewVersion(
                "acme/claims", base="acme/tiny@v1", domain="legal", meta=ADAPTER_META
            )
            heard: list[int] = []
            imported = client.import_bundle(
                "adapter",
                Origin(f"mlflow:{run}", mlflow=server),
                described,
                on_chosen=lambda source: heard.append,
            )
            assert imported.status == "registered"
            assert imported.source == f"mlflow:{run}/model/peft"
            assert [one.path for one in imported.left_out] == ["training_args.bin"]
            assert sum(heard) == sum(
                file.size
                for file in client.version(imported.ref).files
                if file.path.endswith("safetensors")
            ) + len((tmp_path / "adapter" / "adapter_config.json").read_bytes())
            weights = next(
                file
                for file in client.version(imported.ref).files
                if file.path.endswith("safetensors")
            )
            fetched = client.get_blob(weights.sha256, tmp_path / "fetched")
            assert (
                fetched.read_bytes()
                == (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
            )

            named = client.import_bundle(
                "adapter",
                Origin(f"mlflow:{run}/model/peft", mlflow=server),
                described,
            )
            assert (named.status, named.ref) == ("found", imported.ref)

            log.log_artifacts(run, str(tmp_path / "adapter"), "second")
            with pytest.raises(Invalid) as several:
                client.import_bundle("adapter", Origin(f"mlflow:{run}", mlflow=server), described)
            assert several.value.kind == "which-artifact"
            assert f"mlflow:{run}/model/peft, mlflow:{run}/second." in several.value.detail
            for source, kind in (
                (f"mlflow:{run}/notes", "no-bundle"),
                ("mlflow:" + "0" * 32, "mlflow-run-unknown"),
            ):
                with pytest.raises(NotFound) as missing:
                    client.import_bundle("adapter", Origin(source, mlflow=server), described)
                assert missing.value.kind == kind
            assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 2
    finally:
        registry.down()
        registry.store.engine.dispose()


@pytest.mark.slow
def test_what_lies_below_a_bundle_in_mlflow_is_refused_until_it_is_left_out(
    server: str, fresh_database: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    log = MlflowClient(server)
    experiment = log.create_experiment("below")
    run = log.create_run(experiment).info.run_id
    write_base(tmp_path / "model")
    for part in ("2_Dense", "1_Pooling"):
        (tmp_path / "model" / part).mkdir()
        (tmp_path / "model" / part / "config.json").write_text('{"in_features": 4}')
    (tmp_path / "model" / "2_Dense" / "model.safetensors").write_bytes(b"never fetched")
    log.log_artifacts(run, str(tmp_path / "model"), "model")

    (tmp_path / "logged").mkdir()
    write_adapter(tmp_path / "logged" / "peft", seed=5)
    write_adapter(tmp_path / "logged" / "peft" / "my old", seed=6)
    for folder in ("value head", "my old"):
        (tmp_path / "logged" / "peft" / folder).mkdir(exist_ok=True)
        (tmp_path / "logged" / "peft" / folder / "value_head.bin").write_bytes(b"never fetched")
    model = log.create_logged_model(experiment, "reward", source_run_id=run).model_id
    log.log_model_artifacts(model, str(tmp_path / "logged"))

    registry = Live(tmp_path / "home", fresh_database)
    try:
        with Countersign(registry.url, registry.engineer) as client:
            base = NewVersion("acme/tiny", meta=BASE_META)
            adapter = NewVersion(
                "acme/reward", base="acme/tiny@v1", domain="legal", meta=ADAPTER_META
            )

            def bring(kind: Any, source: str, new: NewVersion, *options: str) -> Any:
                given = [name for name in options if name != "--leave-out"]
                return client.import_bundle(kind, Origin(source, given, mlflow=server), new)

            def refused(kind: Any, source: str, new: NewVersion) -> tuple[str, list[str]]:
                with pytest.raises(BundleRejected) as error:
                    bring(kind, source, new)
                [defect] = error.value.defects
                assert defect.rule == "companion-weights"
                return defect.file, shlex.split(defect.fix.partition("it again with ")[2])

            def kept(imported: Any) -> dict[str, int]:
                assert imported.status == "registered"
                version = client.version(imported.ref)
                assert sum("registered without" in risk for risk in version.risks) == 1
                return {entry.path: entry.size for entry in version.left_out}

            with pytest.raises(Invalid) as several:
                bring("base", f"mlflow:{run}", base)
            assert several.value.fix == f"Name one of them, for example mlflow:{run}/model."
            file, options = refused("base", f"mlflow:{run}/model", base)
            assert file == "2_Dense/model.safetensors"
            assert kept(bring("base", f"mlflow:{run}/model", base, *options)) == {
                "1_Pooling": 0,
                "2_Dense": 0,
                "2_Dense/model.safetensors": 13,
            }

            with pytest.raises(Invalid) as unfinished:
                bring("adapter", f"models:/{model}", adapter)
            assert unfinished.value.detail == f"The logged model {model} is still being logged."
            log.finalize_logged_model(model, "READY")
            source = f"models:/{model}/peft"
            file, options = refused("adapter", source, adapter)
            assert (file, options) == ("value head/value_head.bin", ["--leave-out", "value head"])
            assert kept(bring("adapter", source, adapter, *options)) == {
                "my old": 0,
                "value head": 0,
                "value head/value_head.bin": 13,
            }
            with pytest.raises(Invalid, match="There is no file gone"):
                bring("adapter", source, adapter, *options, "gone")
            log.finalize_logged_model(model, "FAILED")
            with pytest.raises(Invalid) as failed:
                bring("adapter", source, adapter)
            assert failed.value.detail == f"The logged model {model} failed to upload."
    finally:
        registry.down()
        registry.store.engine.dispose()


def logged(server: str, folder: Path) -> dict[str, Any]:
    """A run whose outputs `mlflow.transformers.log_model` made: an adapter and its base."""
    import mlflow
    import peft
    import torch
    from mlflow.entities import Dataset, DatasetInput
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.demo.inputs import tiny_base

    base = tiny_base(folder)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(base),
        AutoTokenizer.from_pretrained(base),
    )
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    mlflow.set_tracking_uri(server)
    mlflow.set_experiment("logged")

    def log(name: str, what: Any, **more: Any) -> Any:
        return mlflow.transformers.log_model(
            transformers_model={"model": what, "tokenizer": tokenizer},
            name=name,
            task="text-generation",
            pip_requirements=["torch"],
            **more,
        )

    datasets = [
        Dataset("acme/letters@v1", "0", "countersign", '{"ref": "acme/letters@v1"}'),
        Dataset("acme/gone@v7", "0", "countersign", '{"ref": "acme/gone@v7"}'),
        Dataset("rows.csv", "0", "local", '{"uri": "/srv/rows.csv"}'),
    ]
    with mlflow.start_run() as run:
        made = log("claims", adapted, registered_model_name="claims")
        full = log("whole", AutoModelForCausalLM.from_pretrained(base))
        client = mlflow.MlflowClient()
        client.log_inputs(run.info.run_id, datasets=[DatasetInput(each, []) for each in datasets])
        client.set_registered_model_alias("claims", "champion", "1")
    with mlflow.start_run() as twice:
        first, second = log("a", adapted), log("b", adapted)
    return {
        "base": base,
        "run": run.info.run_id,
        "model": made.model_id,
        "full": full.model_id,
        "twice": twice.info.run_id,
        "both": {first.model_id, second.model_id},
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # log_model warns about the type hints of its own functions
def test_what_log_model_logged_becomes_a_version(
    server: str, fresh_database: str, tmp_path: Path
) -> None:
    """By each address that MLflow gives it, with what MLflow knows of it as a claim."""
    made = logged(server, tmp_path)
    run, model = made["run"], made["model"]
    registry = Live(tmp_path / "home", fresh_database)
    try:
        with Countersign(registry.url, registry.engineer) as client:
            (tmp_path / "rows.jsonl").write_bytes(dataset_bytes())
            client.add_dataset(tmp_path / "rows.jsonl", "acme/letters", DATA_META)
            client.add("base", made["base"], NewVersion("acme/tiny", meta=BASE_META))
            version = NewVersion(
                "acme/claims", base="acme/tiny@v1", domain="legal", meta=ADAPTER_META
            )

            def bring(source: str, kind: Any = "adapter", new: NewVersion = version) -> Any:
                return client.import_bundle(kind, Origin(source, mlflow=server), new)

            imported = bring(f"mlflow:{run}")
            assert (imported.status, imported.source) == ("registered", f"models:/{model}/peft")
            assert imported.meta["datasets"] == ["acme/letters@v1"]
            claimed = imported.meta["mlflow"]
            assert (claimed["run"], claimed["model"]) == (run, model)
            assert [each["name"] for each in claimed["datasets"]] == [
                "acme/letters@v1",
                "acme/gone@v7",
                "rows.csv",
            ]
            assert imported.meta["claimed"]["base_model_name_or_path"] == str(made["base"])
            edges = client.lineage(imported.ref).edges
            assert [edge.grade for edge in edges if edge.relation == "tuned_on"] == ["claimed"]
            files = {file.path for file in client.version(imported.ref).files}
            assert {"adapter_model.safetensors", "tokenizer.json"} <= files

            for source in (
                f"models:/{model}",
                f"mlflow:{model}",
                f"mlflow:{run}/claims",
                f"runs:/{run}/claims",
                "models:/claims/1",
                "models:/claims@champion",
            ):
                again = bring(source)
                assert (again.status, again.ref) == ("found", imported.ref), source
            assert bring("models:/claims/1").meta["mlflow"]["registered"] == "claims/1"
            # Who names the folder of the weights gets that folder: the tokenizer is beside it.
            alone = {
                bring(f"{source}/peft").ref
                for source in (f"models:/{model}", f"runs:/{run}/claims")
            }
            assert len(alone) == 1
            assert alone != {imported.ref}

            # MLflow keeps the base's weights beside an adapter of no repository of the Hub.
            checkpoint = NewVersion("acme/whole", meta={**BASE_META, **ADAPTER_META})
            with pytest.raises(Invalid) as ambiguous:
                bring(f"mlflow:{run}", "checkpoint", checkpoint)
            assert ambiguous.value.kind == "which-artifact"
            assert f"models:/{made['full']}/model" in ambiguous.value.detail
            whole = bring(f"models:/{made['full']}", "checkpoint", checkpoint)
            assert (whole.status, whole.source) == ("registered", f"models:/{made['full']}/model")
            assert client.version(whole.ref).base_root == client.version("acme/tiny@v1").base_root

            with pytest.raises(Invalid) as several:
                bring(f"mlflow:{made['twice']}")
            assert several.value.kind == "which-artifact"
            for each in made["both"]:
                assert f"models:/{each}/peft" in several.value.detail
                assert bring(f"models:/{each}/peft").source == f"models:/{each}/peft"
            for source, kind in (
                ("models:/nobody/1", "mlflow-run-unknown"),
                ("models:/claims/9", "mlflow-run-unknown"),
                ("models:/claims@nobody", "mlflow-run-unknown"),
                ("models:/m-" + "0" * 32, "mlflow-run-unknown"),
                (f"models:/{made['full']}", "no-bundle"),
                (f"mlflow:{run}/nothing", "no-bundle"),
            ):
                with pytest.raises(NotFound) as missing:
                    bring(source)
                assert missing.value.kind == kind, source
    finally:
        registry.down()
        registry.store.engine.dispose()
