"""Adapters, checkpoints and base models: lists, versions, and the forms that change a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
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
    findings,
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
from registry.rules.refs import parse_line
from registry.rules.rollouts import check_reason
from registry.views.chat_templates import ChatTemplateView
from registry.views.retention import KeepingView
from registry.views.training_runs import TrainingRunView
from registry.views.versions import VersionView
from registry.web import words
from registry.web.lineage import edges
from registry.web.pages import MAX_ROWS, Page, needs, render, sent
from registry.web.shelves import SHELVES, Shelf, VersionAddress
from registry.web.visits import Here, Posted, Visit

router = APIRouter(route_class=Page, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Ending:
    """What a person typed to end a version: the reason, and its reference again."""

    reason: str
    confirm: str


@dataclass(frozen=True, slots=True)
class TagForm:
    """What a person typed to set a tag, or the key of the tag to remove."""

    key: str
    value: str
    remove: str


def _list(here: Visit, shelf: Shelf, q: str, team: str, cursor: str) -> Response:
    filters = versions.LineFilter(shelf.kind, team or None, q or None)
    page = versions.lines(here.store, here.actor, filters, PageRequest(cursor or None))
    return render(here, "lines.html", shelf=shelf, page=page, q=q, team=team, cursor=cursor)


def _line(here: Visit, shelf: Shelf, team: str, name: str) -> Response:
    line = parse_line(f"{team}/{name}").line
    of_line = versions.versions(here.store, here.actor, line)
    if not of_line or of_line[0].kind != shelf.kind:
        raise NotFound(
            "line-unknown",
            f"There is no {shelf.noun} {line}.",
            f"See the list of {shelf.title.lower()}.",
        )
    newest_first = sorted(
        of_line, key=lambda version: version.number or 1_000_000_000, reverse=True
    )
    return render(
        here,
        "line.html",
        shelf=shelf,
        team=team,
        name=name,
        line=line,
        versions=newest_first,
        missing=findings.of_versions(here.store, here.actor, line, newest_first[:MAX_ROWS]),
    )


def _version(here: Visit, at: VersionAddress, status: int = 200, **typed: Any) -> Response:
    version = versions.version(here.store, here.actor, at.ref, gone=True)
    if version.kind != at.shelf.kind:
        raise NotFound(
            "version-unknown",
            f"There is no {at.shelf.noun} {at.ref}.",
            f"See the list of {at.shelf.title.lower()}.",
        )
    keeping = None
    if may_read(here.actor, Matter.KEEPING):
        keeping = retention.keeping(here.store, here.actor, version.id)
    stone = retention.tombstone(here.store, here.actor, version.id)
    shown: dict[str, Any] = {
        "shelf": at.shelf,
        "team": at.team,
        "name": at.name,
        "path_here": at.path,
        "version": version,
        "training": _training(here, version),
        "eval_runs": evals.eval_runs(here.store, here.actor, subject=version.ref),
        "edges": edges(lineage.trace(here.store, here.actor, version.ref)),
        "chat": None if stone else _template(here, version),
        "stone": stone,
        "keeping": keeping,
        "bars_deprecate": needs(here, Action.DEPRECATE, at.team),
        "bars_recall": needs(here, Action.RECALL, at.team),
        "bars_delete": _bars_delete(here, at.team, keeping),
        "bars_tag": needs(here, Action.TAG_SET, at.team),
        "tags": tag_queries.tags(here.store, here.actor, version.ref),
        "engines": profiles.engines(here.store, here.actor, version.ref),
        "profiles": profiles.profiles(here.store, here.actor, version.ref),
        "failed": "",
        "error": None,
        "reason": "",
        "confirm": "",
        "tag_error": None,
        "key": "",
        "value": "",
    }
    return render(here, "version.html", status, **(shown | typed))


def _training(here: Visit, version: VersionView) -> TrainingRunView | None:
    """The training run of a version, or None where it has none.

    It is also None for another team's training run: the version names it, but its details are not
    shown.
    """
    if not version.training_run:
        return None
    try:
        return training_runs.training_run(here.store, here.actor, version.training_run)
    except (Forbidden, NotFound):
        return None


def _template(here: Visit, version: VersionView) -> ChatTemplateView | None:
    """The version's own chat template, compared with its base's.

    None where it has none of its own, or where nothing can render it now.
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
    """Why this person, or anybody, cannot delete the version now; '' if nothing bars it.

    The command decides again when it acts.
    """
    barred = needs(here, Action.VERSION_DELETE, team)
    if barred or keeping is None:
        return barred
    try:
        rules.check_free(rules.Standing(keeping.ref, keeping.state, holds=tuple(keeping.holds)))
    except Refused as refusal:
        return f"{refusal.detail} {refusal.fix}"
    if keeping.kept_until is not None and keeping.kept_until > datetime.now(UTC):
        return (
            f"It is kept until {words.utc(keeping.kept_until)}. "
            "No retention class set later makes that time shorter."
        )
    return "It is still needed. Retention, on this page, lists by what." if keeping.needs else ""


def _end(
    here: Posted,
    at: VersionAddress,
    done: str,
    ending: Ending,
    end: Callable[[Store, Actor, str, str], object],
) -> Response:
    """Deprecate, recall or delete a version, which cannot be undone.

    The person types the reference again and gives a reason. A refusal is shown beside its form.
    """
    try:
        if ending.confirm.strip() != at.ref:
            raise Invalid(
                "not-confirmed",
                "What was typed is not the name of this version.",
                f"Type {at.ref} exactly. This act cannot be undone.",
            )
        end(here.store, here.actor, at.ref, check_reason(ending.reason.replace("\r\n", "\n")))
    except NotFound:
        raise
    except RegistryError as error:
        status = STATUSES[error.family]
        return _version(here, at, status, failed=done, error=error, **asdict(ending))
    return sent(at.path, done)


def _tag(here: Posted, at: VersionAddress, form: TagForm) -> Response:
    key, value = form.remove or form.key.strip(), None if form.remove else form.value.strip()
    try:
        tags.put(here.store, here.actor, at.ref, key, value)
    except RegistryError as error:
        if error.kind in ("version-unknown", "line-unknown"):
            raise
        status = STATUSES[error.family]
        return _version(here, at, status, tag_error=error, key=form.key, value=form.value)
    return sent(at.path, "untagged" if form.remove else "tagged")


def _mount(shelf: Shelf) -> None:
    """Add the pages and forms of one kind of line, under its own address."""

    @router.get(f"/{shelf.path}", name=f"{shelf.path}-list")
    def list_page(here: Here, q: str = "", team: str = "", cursor: str = "") -> Response:
        return _list(here, shelf, q.strip(), team.strip(), cursor)

    @router.get(f"/{shelf.path}/{{team}}/{{name}}", name=f"{shelf.path}-line")
    def line_page(here: Here, team: str, name: str) -> Response:
        return _line(here, shelf, team, name)

    @router.get(f"/{shelf.path}/{{team}}/{{name}}/v/{{number}}", name=f"{shelf.path}-version")
    def version_page(here: Here, team: str, name: str, number: int) -> Response:
        return _version(here, VersionAddress(shelf, team, name, number))

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
        at, ending = VersionAddress(shelf, team, name, number), Ending(reason, confirm)
        return _end(here, at, "deprecated", ending, deprecations.deprecate)

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
        at, ending = VersionAddress(shelf, team, name, number), Ending(reason, confirm)
        return _end(here, at, "recalled", ending, recalls.recall)

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
        at, ending = VersionAddress(shelf, team, name, number), Ending(reason, confirm)
        return _end(here, at, "deleted", ending, deletions.delete)

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
        at = VersionAddress(shelf, team, name, number)
        return _tag(here, at, TagForm(key, value, remove))


for _shelf in SHELVES:
    _mount(_shelf)
