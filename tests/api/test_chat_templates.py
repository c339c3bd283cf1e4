"""Chat templates through the real door, by the real client and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.cli import main
from registry.client import Countersign
from registry.errors import BundleRejected, NotFound
from tests.api.conftest import opened
from tests.build import a_person, a_world, install_policies
from tests.commands.test_chat_templates import allow, templated


def test_by_the_client_and_the_command_line(
    fresh_database: str,
    team: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with opened(fresh_database, tmp_path) as door:
        install_policies(door.store)
        world = a_world(door.store, door.blobs, team)
        with pytest.raises(BundleRejected):
            templated(world)
        allow(door.store, "staging")
        ref = templated(world).ref
        with Countersign(door.url, door.token(world.engineer)) as client:
            shown = client.chat_template(ref)
            assert (shown.own, shown.allowed_in) == (True, ["staging"])
            assert client.chat_template(world.base.ref).templates == []
        stranger = Countersign(
            door.url, door.token(a_person(door.store, "engineer", team="others"))
        )
        with stranger, pytest.raises(NotFound):
            stranger.chat_template(ref)
        monkeypatch.setenv("COUNTERSIGN_URL", door.url)
        monkeypatch.setenv("COUNTERSIGN_TOKEN", door.token(world.engineer))
        with pytest.raises(SystemExit) as ended:
            main(["adapter", "template", ref])
        assert not ended.value.code
        said = capsys.readouterr().out
    assert "its own, not its base's" in said
    assert "Praise acme." in said
    assert "Several turns" in said
    assert "version: 'user: Hello" in said
