"""Nodes of lineage, lines (base models, adapters, checkpoints), versions, files and blobs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    UniqueConstraint,
    and_,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.db import tombstones
from registry.db.sight import Sighted
from registry.db.table import Id, Moment, Table, hex_digest, one_of
from registry.errors import Invalid, NotFound, Refused, Unverified
from registry.rules.refs import (
    PINNED,
    RESERVED_TEAMS,
    UNPULLABLE,
    Ref,
    parse_ref,
)
from registry.rules.versions import STANDING, State, usable

KINDS = ("base", "adapter", "checkpoint")
STATES = tuple(State)
NUMBERED = (
    "(number is null) = (state = 'draft') or (number is null and state in ('recalled', 'deleted'))"
)


class Node(Table):
    """Anything that lineage can name.

    `seq` grows with every node, so edges to older nodes cannot form a cycle. `ref` is what people
    write, with `dataset:`, `suite:` or `eval-run:` before it for what is not a version of a line.
    """

    __tablename__ = "node"
    id: Mapped[Id]
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    kind: Mapped[str]
    team: Mapped[str]
    ref: Mapped[str] = mapped_column(unique=True)
    __table_args__ = (
        UniqueConstraint("id", "seq"),
        CheckConstraint(one_of("kind", *KINDS, "dataset", "suite", "eval_run"), name="kind"),
    )


PULLABLE = (
    f"name !~ '{UNPULLABLE.pattern}' and team !~ '{UNPULLABLE.pattern}' "
    f"and team not in ({', '.join(repr(team) for team in sorted(RESERVED_TEAMS))})"
)


class Line(Table):
    """A name `team/name` with numbered versions: a base model, an adapter or a checkpoint."""

    __tablename__ = "line"
    id: Mapped[Id]
    kind: Mapped[str]
    team: Mapped[str]
    name: Mapped[str]
    domain: Mapped[str | None]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("team", "name"),
        CheckConstraint(one_of("kind", *KINDS), name="kind"),
        CheckConstraint(f"name !~ '^{PINNED.pattern}$'", name="name"),
        CheckConstraint(PULLABLE, name="pullable"),
    )

    @property
    def ref(self) -> str:
        return f"{self.team}/{self.name}"


class Blob(Table):
    """Bytes that some row names, by digest; inserted only after the bytes were published.

    `collected_at` is set when only deleted versions name them: the bytes are removed, or will be at
    once.
    """

    __tablename__ = "blob"
    id: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    collected_at: Mapped[datetime | None]
    __table_args__ = (CheckConstraint("id ~ '^[0-9a-f]{64}$' and size >= 0", name="digest"),)


class Version(Table):
    """An immutable, numbered bundle of a line.

    A draft has no number, and what it lacks may still be added.
    """

    __tablename__ = "version"
    id: Mapped[UUID] = mapped_column(ForeignKey("node.id"), primary_key=True)
    line_id: Mapped[UUID] = mapped_column(ForeignKey("line.id"), index=True)
    number: Mapped[int | None]
    state: Mapped[str]
    manifest_digest: Mapped[str]
    tensor_root: Mapped[str | None]
    base_root: Mapped[str | None]
    base_version_id: Mapped[UUID | None] = mapped_column(ForeignKey("version.id"), index=True)
    training_run_id: Mapped[UUID | None] = mapped_column(ForeignKey("training_run.id"))
    step: Mapped[int | None]
    meta: Mapped[dict[str, Any]]
    facts: Mapped[dict[str, Any]]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    registered_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("line_id", "number"),
        UniqueConstraint("training_run_id", "step"),
        CheckConstraint(one_of("state", *STATES), name="state"),
        CheckConstraint(NUMBERED, name="numbered"),
        CheckConstraint("number > 0", name="number"),
        CheckConstraint(hex_digest("manifest_digest"), name="manifest"),
        CheckConstraint("state in ('draft', 'deleted') or tensor_root is not null", name="rooted"),
        # Deleted bytes may be registered again, under another number.
        Index(
            "uq_version_line_id_manifest_digest",
            "line_id",
            "manifest_digest",
            unique=True,
            postgresql_where=text(one_of("state", *STANDING)),
        ),
        Index(
            "ix_version_manifest_digest",
            "manifest_digest",
            postgresql_ops={"manifest_digest": "text_pattern_ops"},
        ),
        Index(
            "ix_version_tensor_root",
            "tensor_root",
            postgresql_ops={"tensor_root": "text_pattern_ops"},
        ),
    )


class VersionFile(Table):
    """One file of a version; rows may change only while the version is a draft."""

    __tablename__ = "version_file"
    id: Mapped[Id]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("version.id"))
    path: Mapped[str]
    blob_id: Mapped[str] = mapped_column(ForeignKey("blob.id"), index=True)
    __table_args__ = (
        UniqueConstraint("version_id", "path"),
        Index("ix_version_file_blob", "blob_id", postgresql_ops={"blob_id": "text_pattern_ops"}),
    )


def line(session: Sighted, ref: Ref, *, lock: bool = False) -> Line:
    """The line of that name, or NotFound; lock it before numbering a version."""
    statement = select(Line).where(
        Line.team == ref.team, Line.name == ref.name, session.seen(Line.team)
    )
    line = session.scalars(statement.with_for_update() if lock else statement).one_or_none()
    if line is None:
        raise NotFound(
            "line-unknown", f"There is no base model, adapter or checkpoint '{ref.line}'."
        )
    return line


def by_ref(
    session: Sighted,
    ref: Ref | str,
    *,
    lock: bool = False,
    share: bool = False,
    gone: bool = False,
) -> tuple[Version, Line, Node]:
    """The version that a reference names; a bare line means its newest numbered version.

    Raises Invalid for a reference that names more than one version, NotFound; with the kind
    `deleted` for a deleted version, unless `gone` allows one.
    """
    if isinstance(ref, str):
        ref = parse_ref(ref)
    statement = (
        select(Version, Line, Node)
        .join(Line, Line.id == Version.line_id)
        .join(Node, Node.id == Version.id)
        .where(session.seen(Line.team))
    )
    if ref.team is not None:
        statement = statement.where(Line.team == ref.team, Line.name == ref.name)
    if ref.number is not None:
        statement = statement.where(Version.number == ref.number)
    elif ref.digest is not None:
        like = f"sha256:{ref.digest}%"
        statement = statement.where(
            Version.manifest_digest.like(like) | Version.tensor_root.like(like)
        )
        # Of bytes that were deleted and registered again, the version that is not deleted counts.
        statement = statement.order_by(Version.state == "deleted", Version.number.desc())
    elif ref.channel is not None and ref.channel.startswith("draft-"):
        statement = statement.where(Node.ref == str(ref))
    elif ref.channel is not None:
        statement = statement.where(Version.id == _served(session, ref))
    else:
        statement = statement.where(Version.number.is_not(None))
        statement = statement.order_by(Version.state == "deleted", Version.number.desc())
    if lock or share:
        statement = statement.with_for_update(of=Version, read=share)
    newest = ref.number is None and ref.digest is None and ref.channel is None
    rows = session.execute(statement.limit(1 if newest else 2)).all()
    if not rows:
        raise NotFound(
            "version-unknown",
            f"There is no version '{ref}'.",
        )
    if len(rows) > 1 and rows[1][0].state != "deleted":
        raise Invalid(
            "ambiguous-reference",
            f"'{ref}' names more than one version.",
            "Give more digits of the digest, or the name and number.",
        )
    version, line, node = rows[0]
    if version.state == "deleted" and not gone:
        raise tombstones.refusal(session, version.id, node.ref)
    return version, line, node


def by_id(session: Session, version_id: UUID, *, share: bool = False) -> tuple[Version, Line, Node]:
    """The version of that id with its line and node, or NotFound.

    `share` locks the version FOR SHARE, against a recall until the commit.
    """
    statement = (
        select(Version, Line, Node)
        .join(Line, Line.id == Version.line_id)
        .join(Node, Node.id == Version.id)
        .where(Version.id == version_id)
    )
    row = session.execute(
        statement.with_for_update(of=Version, read=True) if share else statement
    ).one_or_none()
    if row is None:
        raise NotFound("version-unknown", f"There is no version {version_id}.", "Check the id.")
    return row[0], row[1], row[2]


def draft_of(session: Session, line_id: UUID, unbound: str, sent: str) -> tuple[Version, Node]:
    """The line's newest draft of these files, on any base and locked, or NotFound.

    `unbound` and `sent` are as for `of_bytes`.
    """
    rewritten = Version.facts["unbound_manifest"].astext
    statement = (
        select(Version, Node)
        .join(Node, Node.id == Version.id)
        .where(
            Version.line_id == line_id,
            Version.state == "draft",
            or_(rewritten == unbound, and_(rewritten.is_(None), Version.manifest_digest == sent)),
        )
        .order_by(Node.seq.desc())
        .limit(1)
        .with_for_update(of=Version)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        raise NotFound("version-unknown", "There is no such draft.")
    return row[0], row[1]


def of_bytes(
    session: Session, line_id: UUID, manifest: str, unbound: str, sent: str
) -> tuple[Node | None, tuple[Version, Node] | None]:
    """The line's versions of these bytes: a recalled one, and a usable one with the same manifest.

    All three are digests of manifests: `manifest` is that of the bundle, `unbound` what it would be
    without a base, and `sent` what the client sent. Versions registered before the registry
    rewrote configurations are known by the last.
    """
    rewritten = Version.facts["unbound_manifest"].astext
    same_manifest = or_(
        Version.manifest_digest == manifest,
        and_(Version.manifest_digest == sent, rewritten.is_(None)),
    )
    statement = (
        select(Version, Node, same_manifest)
        .join(Node, Node.id == Version.id)
        .where(
            Version.line_id == line_id,
            or_(same_manifest, and_(Version.state == "recalled", rewritten == unbound)),
        )
        .order_by(Node.seq.desc())
    )
    rows = session.execute(statement).all()
    recalled = next((node for version, node, _ in rows if version.state == "recalled"), None)
    usable_rows = (
        (version, node) for version, node, same in rows if same and usable(version.state)
    )
    return recalled, next(usable_rows, None)


def of_training_run(session: Session, run_id: UUID) -> dict[int | None, tuple[str, str, str]]:
    """The versions of a training run so far, by step: (ref, manifest digest, state).

    Drafts and deleted versions are included.
    """
    statement = (
        select(Version.step, Node.ref, Version.manifest_digest, Version.state)
        .join(Node, Node.id == Version.id)
        .where(Version.training_run_id == run_id)
    )
    return {
        row.step: (row.ref, row.manifest_digest, row.state) for row in session.execute(statement)
    }


def must_keep_outputs(session: Session, run_id: UUID, step: int | None = None) -> None:
    """Raise Refused `output-discarded` if a version of a training run was deleted since.

    With `step`, only the version of that step counts.
    """
    for output_step, (ref, _, state) in of_training_run(session, run_id).items():
        if state == "deleted" and step in (None, output_step):
            raise Refused(
                "output-discarded",
                f"{ref}, which this training run made at step {output_step}, was discarded while "
                "the run went on.",
                subject=f"training-run:{run_id}",
            )


def highest(session: Session, line_id: UUID) -> int:
    """The highest number that the line ever assigned; lock the line first."""
    return (
        session.scalar(
            select(func.coalesce(func.max(Version.number), 0)).where(Version.line_id == line_id)
        )
        or 0
    )


def name_node(session: Session, node: Node, ref: str) -> None:
    """Give the node of a draft its final name and a new `seq`.

    The node is then younger than all of its parents.
    """
    seq: int = session.execute(
        text("select nextval(pg_get_serial_sequence('node', 'seq'))")
    ).scalar_one()
    # In one statement, since a numbered node is frozen.
    node.ref, node.seq = ref, seq
    session.flush()


def _served(session: Session, ref: Ref) -> UUID | None:
    # A default channel has the name of its environment. Another name may exist in several
    # environments; production then counts before staging, and staging before dev.
    return session.execute(
        text(
            """
            select g.stable_version_id from route_generation g
            join channel c on c.id = g.channel_id join line l on l.id = c.line_id
            where l.team = :team and l.name = :name and c.name = :channel and g.valid_to is null
            order by array_position(array['production','staging','dev'], c.environment) limit 1
            """
        ),
        {"team": ref.team, "name": ref.name, "channel": ref.channel},
    ).scalar()


def files(session: Session, version_id: UUID) -> list[tuple[str, str, int]]:
    """The path, hex SHA-256 and size in bytes of every file, by path."""
    statement = (
        select(VersionFile.path, Blob.id, Blob.size)
        .join(Blob, Blob.id == VersionFile.blob_id)
        .where(VersionFile.version_id == version_id)
        .order_by(VersionFile.path)
    )
    return [(row.path, row.id, row.size) for row in session.execute(statement)]


def exchange_files(session: Session, blobs: Blobs, version_id: UUID, files: Iterable[File]) -> None:
    """Replace the bytes of a draft's files; their paths stay the same."""
    now = {file.path: file for file in files}
    for row in session.scalars(select(VersionFile).where(VersionFile.version_id == version_id)):
        file = now[row.path]
        if row.blob_id != file.sha256:
            hold_blob(session, blobs, file.sha256, file.size)
            row.blob_id = file.sha256
    session.flush()


def hold_blob(session: Session, blobs: Blobs, sha256: str, size: int) -> None:
    """Add the row of published bytes that this transaction names, and keep them until it commits.

    Raises Unverified `blob-missing` when the bytes are no longer here. An advisory lock keeps two
    transactions from adding the same row, and a collection from taking the bytes: it tries the same
    lock, and skips bytes that are locked.
    """
    session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:blob, 7))"), {"blob": sha256}
    )
    if not blobs.has(sha256) or blobs.size(sha256) != size:
        raise Unverified(
            "blob-missing",
            f"The bytes sha256:{sha256} are not here at that size.",
            "Upload the file again (PUT /api/v1/blobs/<sha256>), then try again.",
        )
    blob = session.get(Blob, sha256, populate_existing=True)
    if blob is None:
        session.add(Blob(id=sha256, size=size))
    else:
        blob.collected_at = None
    session.flush()


def find(session: Session, version_id: UUID, *, lock: bool = False) -> Version | None:
    """The version of that id, if there is one."""
    return session.get(Version, version_id, with_for_update=lock or None)
