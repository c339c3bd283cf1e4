"""Adapters, checkpoints and base models: their lists, their versions, and the order to recall
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from registry.api.problems import STATUSES
from registry.artifacts.tokenizers.chat_templates import own_of
from registry.commands import deletions, deprecations, recalls, tags
from registry.db.store import Store
from registry.errors import (
    Forbidden,
    Invalid,
    NotFound,
    Refused,
    RegistryError,
    Unavailable,
    Unverified,
)
from registry.queries import (
    chat_templates,
    evals,
    lineage,
    profiles,
    retention,
    training_runs,
    versions,
)
from registry.queries import tags as tag_queries
from registry.queries.pages import PageRequest
from registry.rules import retention as rules
from registry.rules.actions import Action
from registry.rules.actors import Actor, Matter, may_read
from registry.rules.refs import parse_line, parse_ref
from registry.rules.rollouts import check_reason
from registry.rules.versions import GONE
from registry.views.chat_templates import ChatTemplateView
from registry.views.lineage import LineageView, NodeView
from registry.views.retention import KeepingView
from registry.views.versions import VersionView
from registry.web import words
from registry.web.pages import Page, needs, render, sent
from registry.web.visits import Here, Posted, Visit

router = APIRouter(route_class=Page, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Shelf:
    """One kind of line and its part of the console; `fill` is the command that puts the first one
    there.
    """

    path: str
    kind: str
    title: str
    noun: str
    fill: str


SHELVES = (
    Shelf(
        "adapters",
        "adapter",
        "Adapters",
        "adapter",
        "countersign adapter add DIR --name team/name --base REF",
    ),
    Shelf(
        "checkpoints",
        "checkpoint",
        "Checkpoints",
        "checkpoint",
        "countersign checkpoint add DIR --name team/name",
    ),
    Shelf(
        "bases", "base", "Base models", "base model", "countersign base add DIR --name team/name"
    ),
)
BY_KIND = {shelf.kind: shelf for shelf in SHELVES}


def path_of(here: Visit, ref: str) -> str:
    """The page of the version a reference names; NotFound when it names none."""
    found = versions.version(here.store, here.actor, ref, gone=True)
    return version_path(found.kind, found.ref)


def version_path(kind: str, ref: str) -> str:
    """The page of a version by its canonical reference: adapter, team/name@v3 ->
    /adapters/team/name/v/3.
    """
    parsed = parse_ref(ref)
    shelf = BY_KIND[kind].path
    return (
        f"/{shelf}/{parsed.line}/v/{parsed.number}" if parsed.number else f"/{shelf}/{parsed.line}"
    )


@dataclass(frozen=True, slots=True)
class End:
    """One end of a lineage edge: its name, what it is, its page where it has one (the page's own
    thing has none), and its state where that says that it is gone.
    """

    ref: str
    kind: str
    path: str | None
    gone: str


@dataclass(frozen=True, slots=True)
class Tie:
    """One edge as a row: `child` stands on `parent` by `relation`, as surely as `grade` says."""

    depth: int
    child: End
    relation: str
    parent: End
    grade: str


def ties(graph: LineageView) -> list[Tie]:
    """The graph as a table, furthest ancestors first, then what stands on the focus."""

    def end(node: NodeView) -> End:
        path = (
            version_path(node.kind, node.ref)
            if node.kind in BY_KIND and node.id != graph.focus
            else None
        )
        return End(
            node.ref,
            node.kind.replace("_", " "),
            path,
            node.state if node.state in GONE else "",
        )

    nodes = {node.id: node for node in graph.nodes}
    rows = [
        Tie(
            min(parent.depth, child.depth),
            end(child),
            edge.relation.replace("_", " "),
            end(parent),
            edge.grade,
        )
        for edge in graph.edges
        if (child := nodes.get(edge.child)) is not None
        and (parent := nodes.get(edge.parent)) is not None
    ]
    return sorted(rows, key=lambda row: (row.depth, row.child.ref, row.parent.ref))


def _list(here: Visit, shelf: Shelf, q: str, team: str, cursor: str) -> Response:
    filters = versions.LineFilter(shelf.kind, team or None, q or None)
    page = versions.lines(here.store, here.actor, filters, PageRequest(cursor or None))
    return render(here, "lines.html", shelf=shelf, page=page, q=q, team=team, cursor=cursor)


def _line(here: Visit, shelf: Shelf, team: str, name: str) -> Response:
    line = parse_line(f"{team}/{name}").line
    found = versions.versions(here.store, here.actor, line)
    if not found or found[0].kind != shelf.kind:
        raise NotFound(
            "line-unknown",
            f"There is no {shelf.noun} {line}.",
            f"See the list of {shelf.title.lower()}.",
        )
    newest_first = sorted(found, key=lambda version: version.number or 1_000_000_000, reverse=True)
    return render(
        here, "line.html", shelf=shelf, team=team, name=name, line=line, versions=newest_first
    )


def _version(
    here: Visit, shelf: Shelf, team: str, name: str, number: int, status: int = 200, **typed: Any
) -> Response:
    ref = f"{team}/{name}@v{number}"
    version = versions.version(here.store, here.actor, ref, gone=True)
    if version.kind != shelf.kind:
        raise NotFound(
            "version-unknown",
            f"There is no {shelf.noun} {ref}.",
            f"See the list of {shelf.title.lower()}.",
        )
    may = may_read(here.actor, Matter.KEEPING)
    keeping = retention.keeping(here.store, here.actor, version.id) if may else None
    training, stone = None, retention.tombstone(here.store, here.actor, version.id)
    if version.training_run:
        try:
            training = training_runs.training_run(here.store, here.actor, version.training_run)
        except (
            Forbidden,
            NotFound,
        ):  # another team's training run: the version names it, its details stay theirs
            training = None
    shown: dict[str, Any] = {
        "shelf": shelf,
        "team": team,
        "name": name,
        "version": version,
        "training": training,
        "eval_runs": evals.eval_runs(here.store, here.actor, subject=version.ref),
        "ties": ties(lineage.trace(here.store, here.actor, version.ref)),
        "chat": None if stone else _template(here, version),
        "stone": stone,
        "keeping": keeping,
        "bars_deprecate": needs(here, Action.DEPRECATE, team),
        "bars_recall": needs(here, Action.RECALL, team),
        "error": None,
        "reason": "",
        "confirm": "",
        "bars_delete": _bars_delete(here, team, keeping),
        "failed": "",
        "tags": tag_queries.tags(here.store, here.actor, version.ref),
        "bars_tag": needs(here, Action.TAG_SET, team),
        "tag_error": None,
        "key": "",
        "value": "",
        "engines": profiles.engines(here.store, here.actor, version.ref),
        "profiles": profiles.profiles(here.store, here.actor, version.ref),
    }
    return render(here, "version.html", status, **(shown | typed))


def _template(here: Visit, version: VersionView) -> ChatTemplateView | None:
    """A chat template of its own, compared for whoever decides; None where it has none, or nothing
    can render now.
    """
    if own_of(version.facts) is None:
        return None
    try:
        return chat_templates.chat_template(
            here.store, here.request.app.state.blobs, here.actor, version.ref
        )
    except (Unavailable, Unverified):
        return None


def _bars_delete(here: Visit, team: str, keeping: KeepingView | None) -> str:
    """Why nobody may delete it now, or why this person may not; the command decides again, at the
    moment it acts.
    """
    barred = needs(here, Action.VERSION_DELETE, team)
    if barred or keeping is None:
        return barred
    try:
        rules.check_free(rules.Standing(keeping.ref, keeping.state, holds=tuple(keeping.holds)))
    except Refused as held:
        return f"{held.detail} {held.fix}"
    if keeping.kept_until is not None and keeping.kept_until > datetime.now(UTC):
        return (
            f"It is kept until {words.utc(keeping.kept_until)}: no class set later makes that "
            "time shorter."
        )
    return "It is still needed: see under Kept." if keeping.needs else ""


def _end(
    here: Posted,
    shelf: Shelf,
    team: str,
    name: str,
    number: int,
    reason: str,
    confirm: str,
    done: str,
    end: Callable[[Store, Actor, str, str], object],
) -> Response:
    """Deprecate, recall or delete, each for good: the reference typed again, a reason, and a refusal beside
    the form it came from.
    """
    ref = f"{team}/{name}@v{number}"
    try:
        if confirm.strip() != ref:
            raise Invalid(
                "not-confirmed",
                f"Type {ref} to confirm what is {done}.",
            )
        end(here.store, here.actor, ref, check_reason(reason.replace("\r\n", "\n")))
    except NotFound:
        raise
    except RegistryError as error:
        typed = {"failed": done, "error": error, "reason": reason, "confirm": confirm}
        return _version(here, shelf, team, name, number, STATUSES[error.family], **typed)
    return sent(f"/{shelf.path}/{team}/{name}/v/{number}", done)


def _tag(
    here: Posted, shelf: Shelf, team: str, name: str, number: int, key: str, value: str, remove: str
) -> Response:
    ref = f"{team}/{name}@v{number}"
    try:
        tags.put(
            here.store, here.actor, ref, remove or key.strip(), None if remove else value.strip()
        )
    except RegistryError as error:
        if error.kind in ("version-unknown", "line-unknown"):
            raise
        return _version(
            here,
            shelf,
            team,
            name,
            number,
            STATUSES[error.family],
            tag_error=error,
            key=key,
            value=value,
        )
    return sent(f"/{shelf.path}/{team}/{name}/v/{number}", "untagged" if remove else "tagged")


def _mount(shelf: Shelf) -> None:
    """The same pages and forms for each kind of line, under an address of its own."""

    @router.get(f"/{shelf.path}", name=f"{shelf.path}-list")
    def list_page(here: Here, q: str = "", team: str = "", cursor: str = "") -> Response:
        return _list(here, shelf, q.strip(), team.strip(), cursor)

    @router.get(f"/{shelf.path}/{{team}}/{{name}}", name=f"{shelf.path}-line")
    def line_page(here: Here, team: str, name: str) -> Response:
        return _line(here, shelf, team, name)

    @router.get(f"/{shelf.path}/{{team}}/{{name}}/v/{{number}}", name=f"{shelf.path}-version")
    def version_page(here: Here, team: str, name: str, number: int) -> Response:
        return _version(here, shelf, team, name, number)

    @router.post(
        f"/{shelf.path}/{{team}}/{{name}}/v/{{number}}/deprecate", name=f"{shelf.path}-deprecate"
    )
    def deprecate(
        here: Posted,
        team: str,
        name: str,
        number: int,
        reason: Annotated[str, Form()] = "",
        confirm: Annotated[str, Form()] = "",
    ) -> Response:
        act = deprecations.deprecate
        return _end(here, shelf, team, name, number, reason, confirm, "deprecated", act)

    @router.post(
        f"/{shelf.path}/{{team}}/{{name}}/v/{{number}}/recall", name=f"{shelf.path}-recall"
    )
    def recall(
        here: Posted,
        team: str,
        name: str,
        number: int,
        reason: Annotated[str, Form()] = "",
        confirm: Annotated[str, Form()] = "",
    ) -> Response:
        return _end(here, shelf, team, name, number, reason, confirm, "recalled", recalls.recall)

    @router.post(
        f"/{shelf.path}/{{team}}/{{name}}/v/{{number}}/delete", name=f"{shelf.path}-delete"
    )
    def delete(
        here: Posted,
        team: str,
        name: str,
        number: int,
        reason: Annotated[str, Form()] = "",
        confirm: Annotated[str, Form()] = "",
    ) -> Response:
        return _end(here, shelf, team, name, number, reason, confirm, "deleted", deletions.delete)

    @router.post(f"/{shelf.path}/{{team}}/{{name}}/v/{{number}}/tags", name=f"{shelf.path}-tag")
    def tag(
        here: Posted,
        team: str,
        name: str,
        number: int,
        key: Annotated[str, Form()] = "",
        value: Annotated[str, Form()] = "",
        remove: Annotated[str, Form()] = "",
    ) -> Response:
        return _tag(here, shelf, team, name, number, key, value, remove)


for _shelf in SHELVES:
    _mount(_shelf)
