"""`countersign verify` through the real door: exit 8 for bytes that are not what was registered."""

from __future__ import annotations

import json

import pytest

from registry.cli import main
from registry.client import Countersign
from tests.api.conftest import Door
from tests.build import a_world


def test_a_damaged_blob_ends_in_exit_8(
    door: Door, team: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = a_world(door.store, door.blobs, team)
    monkeypatch.setenv("COUNTERSIGN_URL", door.url)
    monkeypatch.setenv("COUNTERSIGN_TOKEN", door.token(world.engineer))

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["verify", world.base.ref, *words])
        return int(ended.value.code or 0), capsys.readouterr().out

    code, said = run()
    assert code == 0
    assert "form" in said and "✓ ok" in said
    with Countersign(door.url, door.token(world.engineer)) as client:
        [sha256] = [
            one.sha256 for one in client.version(world.base.ref).files if one.path == "config.json"
        ]
    [blob] = list(door.settings.home.rglob(sha256))
    whole = blob.read_bytes()
    blob.chmod(0o600)
    try:
        blob.write_bytes(whole[:-1] + b" ")
        code, said = run("--json")
        checks = {one["check"]: one["outcome"] for one in json.loads(said)["checks"]}
        assert (code, checks["config.json"]) == (8, "fault")
        assert "✗ fault" in run()[1]
    finally:
        blob.write_bytes(whole)
