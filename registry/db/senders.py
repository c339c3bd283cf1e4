# ruff: noqa: S608 - only names and states of our own are put into SQL; every value is a parameter
"""Who has sent which bytes, and who may name them. A digest alone gives no access to bytes.

A row may name bytes if the actor has sent all of them, or may read them already, so that naming
them gives the actor nothing new. To everybody else these bytes are not here: the answer is the same
as for bytes that nobody ever sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.blobs.drafts import check
from registry.blobs.store import Blobs
from registry.db.store import Store
from registry.db.table import Moment, Table, one_of
from registry.errors import Unverified
from registry.rules import pulls
from registry.rules.actors import Actor, Role
from registry.rules.versions import USABLE

REFRESH_AFTER = timedelta(hours=1)
"""The age at which a note is renewed.

It is far less than a collection's grace. Most clients ask again at once, and then nothing needs to
be written.
"""
Named = tuple[str, str, int | None]
"""Bytes to name: a description for people, the hex SHA-256, and the size in bytes if known."""


class BlobSender(Table):
    """A note that an account is sending bytes, or (`whole`) has sent all of them.

    It is upkeep, and forgotten after a collection's grace. It is by account, not by team or token:
    an account has the bytes whichever token it uses.
    """

    __tablename__ = "blob_sender"
    governed = False
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    whole: Mapped[bool]
    at: Mapped[Moment]


STRANGE = text(
    f"""
    select d.id from unnest(cast(:digests as text[])) as d (id)
    where not exists (
        select from blob_sender s where s.id = d.id and s.account_id = :account and s.whole)
    and not exists (
        select from version_file f
        join version v on v.id = f.version_id join line l on l.id = v.line_id
        where f.blob_id = d.id and (:everywhere or l.team = any(:teams))
        and ({one_of("v.state", *USABLE)}
             or (v.state = 'draft' and (:reviews or v.created_by = :account))))
    and not exists (
        select from dataset_version r join node n on n.id = r.id
        where r.blob_id = d.id and r.state <> 'deleted' and (
            :all_answers or n.team = any(:answers)
            or (has_only_train(r.splits) and (:everywhere or n.team = any(:teams)))))
    and not exists (
        select from training_run r join dataset_version v on v.id = r.dataset_version_id
        join node n on n.id = v.id
        where r.rows_blob_id = d.id and v.state <> 'deleted'
            and (:everywhere or n.team = any(:teams)))
    and not exists (
        select from eval_suite_version r join node n on n.id = r.id
        where r.blob_id = d.id and (:all_answers or n.team = any(:answers)))
    and not exists (
        select from eval_suite_version r join node n on n.id = r.id
        where r.prompts_blob_id = d.id and (:everywhere or n.team = any(:teams)))
    and not exists (
        select from eval_run r join node n on n.id = r.id
        where r.samples_blob_id = d.id and (:all_answers or n.team = any(:answers)))
    and not exists (
        select from serving_profile p join node n on n.id = p.version_id
        where p.system_prompt_id = d.id and (:everywhere or n.team = any(:teams)))
    """
)
"""Those of the digests that an account may not name.

It is `pulls.refusal` in SQL, for everybody who works on versions: what only gateways may load,
nobody may name. What holds expected answers, trainers may not name either: who names bytes in a
version of their own may read them.
"""


def lock(session: Session, digest: str) -> None:
    """Lock these bytes: transactions that name or collect them wait for each other."""
    session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:blob, 7))"), {"blob": digest}
    )


def note(session: Session, actor: Actor, digest: str, *, whole: bool) -> None:
    """Note that the actor is sending these bytes or, if `whole`, has sent all of them.

    A note that was whole stays whole.
    """
    if actor.account is None:
        return
    statement = insert(BlobSender).values(
        id=digest, account_id=actor.account, whole=whole, at=func.clock_timestamp()
    )
    keys = [BlobSender.id, BlobSender.account_id]
    session.execute(
        statement.on_conflict_do_update(
            index_elements=keys,
            set_={
                "whole": BlobSender.whole | statement.excluded.whole,
                "at": statement.excluded.at,
            },
        )
    )


def sent(session: Session, actor: Actor, digest: str) -> bool:
    """Whether this account has sent all of these bytes."""
    sender = session.get(BlobSender, (digest, actor.account)) if actor.account else None
    return sender is not None and sender.whole


def forget(session: Session, before: datetime) -> None:
    """Delete the notes from before a moment, skipping those that are being renewed now."""
    old = (
        select(BlobSender.id, BlobSender.account_id)
        .where(BlobSender.at <= before)
        .with_for_update(skip_locked=True)
    )
    session.execute(delete(BlobSender).where(tuple_(BlobSender.id, BlobSender.account_id).in_(old)))


def strange(session: Session, actor: Actor, digests: Sequence[str]) -> set[str]:
    """Those of the digests that this actor may not name, in one query."""
    if actor.is_system:
        return set()
    teams, answers = pulls.works_in(actor), pulls.answers_in(actor)
    parameters = {
        "digests": list(digests),
        "account": actor.account,
        "everywhere": teams is None,
        "teams": sorted(teams or ()),
        "all_answers": answers is None,
        "answers": sorted(answers or ()),
        "reviews": actor.holds(Role.REVIEWER),
    }
    return set(session.scalars(STRANGE, parameters))


def must_have(store: Store, blobs: Blobs, actor: Actor, named: Iterable[Named]) -> None:
    """Raise Unverified `blob-missing` for the first that is missing or that the actor may not name.

    Raises Invalid for a malformed digest.
    """
    named = checked(named)
    with store.read(actor) as session:
        foreign = strange(session, actor, [digest for _, digest, _ in named])
    must_be_here(blobs, named, foreign)


def checked(named: Iterable[Named]) -> list[Named]:
    """The same, with every digest well formed; else Invalid."""
    return [(what, check(digest), size) for what, digest, size in named]


def must_be_here(blobs: Blobs, named: Iterable[Named], foreign: Collection[str]) -> None:
    """Raise Unverified `blob-missing` for the first that is missing or in `foreign`.

    `foreign` is the answer of `strange`. Both cases get the same answer, and the store is not asked
    about foreign bytes, so the time of the answer does not reveal them either.
    """
    for what, digest, size in named:
        if digest in foreign or not blobs.has(digest) or size not in (None, blobs.size(digest)):
            at_that_size = "" if size is None else " at that size"
            raise Unverified(
                "blob-missing",
                f"{what}: the bytes sha256:{digest} are not here{at_that_size}.",
                "Send them (PUT /api/v1/blobs/<sha256>), then try again. Bytes that others sent do "
                "not count.",
            )


def refresh(session: Session, actor: Actor, digest: str) -> None:
    """Renew the actor's note on bytes that they are about to name, if it is older than an hour."""
    statement = update(BlobSender).where(
        BlobSender.id == digest,
        BlobSender.account_id == actor.account,
        BlobSender.at < func.clock_timestamp() - REFRESH_AFTER,
    )
    session.execute(statement.values(at=func.clock_timestamp()))
