# ruff: noqa: S608 - only names and states of our own are put into SQL; every value is a parameter
"""Who has sent which bytes, and whose they are to name: a digest alone is no key to bytes.

A row may name bytes when the actor has sent these very bytes, whole, or may read them already, so
that naming them gives him nothing new. To all others they are not here at all: what they hear is
what is said of bytes nobody ever sent.
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

YOUNG = timedelta(hours=1)
"""Far less than a collection's grace; most who ask again do so at once, and then nothing is to be
written.
"""
Named = tuple[str, str, int | None]
"""What is to be named, as it is told to people; its hex SHA-256; its size in bytes, where that was
said.
"""


class BlobSender(Table):
    """An account is sending bytes, or (`whole`) has sent all of them; upkeep, gone after a
    collection's grace.

    By account, and not by team or token: whoever has the bytes has them, with whichever token he
    comes.
    """

    __tablename__ = "blob_sender"
    governed = False
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    whole: Mapped[bool]
    at: Mapped[Moment]


# `pulls.refusal` in SQL, for all who work on versions: what gateways alone may load is nobody's to
# name.
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
        where r.blob_id = d.id and r.state <> 'deleted' and (:everywhere or n.team = any(:teams)))
    and not exists (
        select from eval_suite_version r join node n on n.id = r.id
        where r.blob_id = d.id and (:everywhere or n.team = any(:teams)))
    and not exists (
        select from eval_run r join node n on n.id = r.id
        where r.samples_blob_id = d.id and (:everywhere or n.team = any(:teams)))
    and not exists (
        select from serving_profile p join node n on n.id = p.version_id
        where p.system_prompt_id = d.id and (:everywhere or n.team = any(:teams)))
    """
)


def lock(session: Session, digest: str) -> None:
    """Wait for whoever names or collects these bytes at this moment, and let them wait for this
    transaction.
    """
    session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:blob, 7))"), {"blob": digest}
    )


def note(session: Session, actor: Actor, digest: str, *, whole: bool) -> None:
    """Note that bytes are being sent now, or that all of them came; what was whole stays so."""
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
    """Has this account sent all of these bytes?"""
    found = session.get(BlobSender, (digest, actor.account)) if actor.account else None
    return found is not None and found.whole


def forget(session: Session, before: datetime) -> None:
    """Drop the notes that protect nothing any more; one that somebody renews at this moment is not
    waited for.
    """
    old = (
        select(BlobSender.id, BlobSender.account_id)
        .where(BlobSender.at <= before)
        .with_for_update(skip_locked=True)
    )
    session.execute(delete(BlobSender).where(tuple_(BlobSender.id, BlobSender.account_id).in_(old)))


def strange(session: Session, actor: Actor, digests: Sequence[str]) -> set[str]:
    """Those of the digests that are not this actor's to name: one query, however many there are."""
    if actor.is_system:
        return set()
    teams = pulls.works_in(actor)
    given = {
        "digests": list(digests),
        "account": actor.account,
        "everywhere": teams is None,
        "teams": sorted(teams or ()),
        "reviews": actor.holds(Role.REVIEWER),
    }
    return set(session.scalars(STRANGE, given))


def must_have(store: Store, blobs: Blobs, actor: Actor, wanted: Iterable[Named]) -> None:
    """Unverified (`blob-missing`) for the first that is missing or not this actor's to name."""
    wanted = checked(wanted)
    with store.read(actor) as session:
        not_his = strange(session, actor, [digest for _, digest, _ in wanted])
    must_be_here(blobs, wanted, not_his)


def checked(wanted: Iterable[Named]) -> list[Named]:
    """The same, each digest well formed, or Invalid."""
    return [(what, check(digest), size) for what, digest, size in wanted]


def must_be_here(blobs: Blobs, wanted: Iterable[Named], not_his: Collection[str]) -> None:
    """Unverified (`blob-missing`) for the first that is missing or among the `strange`: both are
    answered in one way.

    The store is not even asked about strange bytes, so the answer takes no longer where there are
    some.
    """
    for what, digest, size in wanted:
        if digest in not_his or not blobs.has(digest) or size not in (None, blobs.size(digest)):
            at_that_size = "" if size is None else " at that size"
            raise Unverified(
                "blob-missing",
                f"{what}: the bytes sha256:{digest} are not here{at_that_size}.",
                "Send them (PUT /api/v1/blobs/<sha256>), then run this again; bytes that others "
                "sent do not count.",
            )


def refresh(session: Session, actor: Actor, digest: str) -> None:
    """What somebody has sent and asks for again stays his: he is about to name it. A young note is
    left as it is.
    """
    mine = (BlobSender.id == digest, BlobSender.account_id == actor.account)
    old = BlobSender.at < func.clock_timestamp() - YOUNG
    session.execute(update(BlobSender).where(*mine, old).values(at=func.clock_timestamp()))
