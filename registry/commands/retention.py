"""Define retention classes, and say which one a line, a data set or a team is under."""

from __future__ import annotations

from uuid import uuid4

from registry.db import accounts, datasets, retention, tombstones, versions
from registry.db.retention import RetentionClass, RetentionSetting
from registry.db.store import Store, Tx
from registry.errors import Conflict, Invalid, NotFound
from registry.rules import retention as rules
from registry.rules.actions import Action
from registry.rules.actors import Actor, Role
from registry.rules.refs import NAME, parse_line
from registry.rules.retention import Terms
from registry.rules.rollouts import check_reason
from registry.views.retention import ClassView, SettingView

PREFIX = "dataset:"


def define(store: Store, actor: Actor, terms: Terms, reason: str) -> ClassView:
    """Freeze the terms of a new class. Raises Invalid `bad-retention`, Conflict `class-exists`."""
    said = check_reason(reason)
    rules.check_terms(terms)
    with store.write(actor, Action.RETENTION_DEFINE) as tx:
        if retention.find_class(tx.session, terms.name) is not None:
            raise Conflict(
                "class-exists",
                f"There is a retention class '{terms.name}', and classes never change.",
            )
        row = tx.add(
            RetentionClass(
                id=uuid4(),
                name=terms.name,
                keep_days=terms.keep_days,
                counted_from=terms.counted_from,
                after=terms.after,
                draft_days=terms.draft_days,
                reason_commitment=accounts.seal(tx.session, "reason", said),
                defined_by=actor.account,
                defined_at=tx.now,
            )
        )
        tx.audit(
            f"retention:{terms.name}",
            keep_days=terms.keep_days,
            counted_from=terms.counted_from,
            after=terms.after,
            draft_days=terms.draft_days,
        )
        return ClassView(
            row.name,
            row.keep_days,
            row.counted_from,
            row.after,
            row.draft_days,
            actor.name,
            row.defined_at,
            said,
        )


def assign(store: Store, actor: Actor, name: str, retention_class: str, reason: str) -> SettingView:
    """Put a line, a data set (`dataset:` before its name) or, by its bare name, a team under a
    class.

    What is registered already keeps what it had at the least. Raises Refused `shorter-retention`,
    NotFound, Invalid.
    """
    said = check_reason(reason)
    if "/" in name:
        ref = parse_line(name.removeprefix(PREFIX))
        assert ref.team is not None
        team, called = ref.team, ref.name
    else:
        team, called = name, None
        if not NAME.fullmatch(name):
            raise Invalid(
                "bad-team",
                f"'{name[:60]}' cannot name a team.",
            )
    with store.write(actor, Action.RETENTION_ASSIGN) as tx:
        tx.within(team)
        tombstones.one_at_a_time(tx.session)
        kind = None if called is None else _kind(tx, name)
        present = retention.in_force(tx.session, team, kind, called)
        wanted = retention.class_by_name(tx.session, retention_class)
        rules.check_change(
            present.terms, wanted.terms, administrator=actor.holds(Role.ADMIN), subject=name
        )
        assert actor.account is not None
        tx.add(
            RetentionSetting(
                id=uuid4(),
                team=team,
                kind=kind,
                name=called,
                class_id=wanted.id,
                set_by=actor.account,
                set_at=tx.now,
                reason_commitment=accounts.seal(tx.session, "reason", said),
            )
        )
        shortened = rules.shortens(present.terms, wanted.terms)
        tx.audit(
            f"retention:{name}", retention=wanted.name, before=present.name, shortened=shortened
        )
        return SettingView(name, wanted.name, shortened)


def _kind(tx: Tx, name: str) -> str:
    """`line` or `dataset`; a line that is not there yet may come under its class before its first
    version does.
    """
    if name.startswith(PREFIX):
        return "dataset"
    ref = parse_line(name)
    try:
        versions.line(tx.session, ref)
    except NotFound:
        if datasets.line(tx.session, ref) is not None:
            raise Invalid(
                "ambiguous-reference", f"'{name}' is a data set.", f"Write dataset:{name}."
            ) from None
    return "line"
