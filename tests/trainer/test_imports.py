"""An adapter that a real MLflow server holds, imported into a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.client import Countersign, NewVersion, Origin
from registry.errors import Invalid, NotFound
from tests.build import ADAPTER_META, BASE_META
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
            assert "model/peft, second" in several.value.detail
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
