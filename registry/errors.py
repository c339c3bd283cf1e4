"""Every way to say no. Knows no HTTP: each door translates once, in one table.

RegistryError
├── Invalid            the request itself is wrong (bad field, bad reference)
├── TooLarge           more bytes than the limit
├── Unauthenticated    no token, an unknown or expired one, or a sign-in that is too old
├── Forbidden          signed in, but the role does not allow it
├── NotFound           no such thing, or it belongs to a team you cannot see
├── Conflict           it exists already, or somebody was faster
├── Refused            a rule or a gate says no
├── BundleRejected     the files are not a sound bundle; lists every defect
├── Unverified         a digest, signature or log does not check out
├── Unavailable        the database or another part is away; try again
└── Fault              our own mistake
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class RegistryError(Exception):
    """One refusal: a stable `kind`, what and why in `detail`, what to do in `fix`, and facts for
    machines.
    """

    family = "fault"

    def __init__(self, kind: str, detail: str, fix: str = "", **facts: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.fix = fix
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.detail} {self.fix}".strip()


class Invalid(RegistryError):
    """The request itself is wrong; sending it again cannot help."""

    family = "invalid"


class TooLarge(RegistryError):
    """More bytes than the limit allows."""

    family = "too-large"


class Unauthenticated(RegistryError):
    """Nobody we know, or a sign-in too old for this act."""

    family = "unauthenticated"


class Forbidden(RegistryError):
    """Known, but no role held allows this act."""

    family = "forbidden"


class NotFound(RegistryError):
    """No such thing; a thing of another team answers the same, so that names do not leak."""

    family = "not-found"


class Conflict(RegistryError):
    """The state moved or the thing exists already."""

    family = "conflict"


class Refused(RegistryError):
    """A rule or a gate says no; recorded in the audit log."""

    family = "refused"


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing wrong with one place of a bundle, and how to fix it."""

    file: str
    where: str
    rule: str
    detail: str
    fix: str


class BundleRejected(RegistryError):
    """The files are refused; every defect is listed, not only the first."""

    family = "rejected"

    def __init__(self, defects: list[Defect], **facts: Any) -> None:
        count = len(defects)
        first = f"{defects[0].file}: {defects[0].detail}" if defects else ""
        super().__init__(
            "bundle-rejected",
            f"The bundle was refused for {count} defect{'s' if count != 1 else ''}. First: {first}",
            "Fix every defect listed and add it again; nothing was stored.",
            **facts,
        )
        self.defects = defects


class Unverified(RegistryError):
    """Bytes, a signature or the log do not check out."""

    family = "unverified"


class Unavailable(RegistryError):
    """A part we depend on is away for the moment."""

    family = "unavailable"


class Fault(RegistryError):
    """Our own mistake; the request id leads to the log line."""

    family = "fault"


FAMILIES: dict[str, type[RegistryError]] = {
    cls.family: cls
    for cls in (
        Invalid,
        TooLarge,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        Refused,
        Unverified,
        Unavailable,
        Fault,
    )
}
