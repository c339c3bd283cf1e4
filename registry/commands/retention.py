"""Define retention classes, and assign them to lines, data sets and teams."""

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
    text = check_reason(reason)
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
                reason_commitment=accounts.seal(tx.session, "reason", text),
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
            reason=row.reason_commitment,
        )
        return ClassView(
            row.name,
            row.keep_days,
            row.counted_from,
            row.after,
            row.draft_days,
            actor.name,
            row.defined_at,
            text,
        )


def assign(store: Store, actor: Actor, name: str, retention_class: str, reason: str) -> SettingView:
    """Put a line, a data set or a team under a class.

    `name` is `team/name`, with `dataset:` before it for a data set, or the bare name of a team.
    What is registered already keeps at least the terms that it had. Raises Refused
    `shorter-retention`, NotFound, Invalid.
    """
    text = check_reason(reason)
    if "/" in name:
        ref = parse_line(name.removeprefix(PREFIX))
        assert ref.team is not None
        team, own_name = ref.team, ref.name
    else:
        team, own_name = name, None
        if not NAME.fullmatch(name):
            raise Invalid(
                "bad-team",
                f"'{name[:60]}' cannot name a team.",
            )
    with store.write(actor, Action.RETENTION_ASSIGN) as tx:
        tx.within(team)
        tombstones.one_at_a_time(tx.session)
        kind = None if own_name is None else _kind(tx, name)
        present = retention.in_force(tx.session, team, kind, own_name)
        assigned = retention.class_by_name(tx.session, retention_class)
        rules.check_change(
            present.terms, assigned.terms, administrator=actor.holds(Role.ADMIN), subject=name
        )
        assert actor.account is not None
        setting = tx.add(
            RetentionSetting(
                id=uuid4(),
                team=team,
                kind=kind,
                name=own_name,
                class_id=assigned.id,
                set_by=actor.account,
                set_at=tx.now,
                reason_commitment=accounts.seal(tx.session, "reason", text),
            )
        )
        shortened = rules.shortens(present.terms, assigned.terms)
        tx.audit(
            f"retention:{name}",
            retention=assigned.name,
            before=present.name,
            shortened=shortened,
            reason=setting.reason_commitment,
        )
        return SettingView(name, assigned.name, shortened)


def _kind(tx: Tx, name: str) -> str:
    """`line` or `dataset`. A line may be put under a class before it has its first version."""
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
