"""The page of a use case: every version of what it says, with who changed it and why."""

from __future__ import annotations

from registry.commands import use_cases
from tests.build import World, a_person
from tests.web.conftest import Console


def test_a_use_case_shows_what_it_said_before(console: Console, world: World) -> None:
    actor = world.engineer.actor
    use_cases.update(
        world.store,
        actor,
        use_cases.UseCaseUpdate(
            world.use_case, "Somebody leaves.", owner="nora", details={"people": "<many>"}
        ),
    )
    with console.signed_in(world.compliance) as client:
        answer = client.get(f"/use-cases/{world.use_case}")
        assert answer.status_code == 200, answer.text
        for words in ("Somebody leaves.", actor.name, "nora", f"{world.suite}@v1", "&lt;many&gt;"):
            assert words in answer.text, words
        assert f'href="/suites/{world.suite}/v/1"' in answer.text
        assert client.get(f"/use-cases/{world.team}/none").status_code == 404
    auditor = a_person(console.store, "auditor", team="audit")
    with console.signed_in(auditor) as client:
        page = client.get(f"/use-cases/{world.use_case}").text
        assert "countersign usecase update" not in page
        assert "An engineer or reviewer can do this." in page
    with console.signed_in(world.engineer) as client:
        page = client.get(f"/use-cases/{world.use_case}").text
        assert f"countersign usecase update {world.use_case}" in page
