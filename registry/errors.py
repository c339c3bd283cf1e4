"""Every error that the registry raises for a caller. Each door translates families to its protocol.

`problems.toml` lists every kind of problem with its family, title, meaning and fix. A kind that is
not listed, or that is raised with another family than the listed one, becomes a Fault.

RegistryError
├── Invalid            the request itself is wrong (bad field, bad reference)
├── TooLarge           more bytes than the limit
├── Unauthenticated    no token, an unknown or expired one, or a sign-in that is too old
├── Forbidden          signed in, but no role allows the act
├── NotFound           no such thing, or it belongs to a team that the caller does not see
├── Conflict           it exists already, or somebody was faster
├── Refused            a rule or a gate does not allow it
├── BundleRejected     the files are not a sound bundle; lists every defect
├── Unverified         a digest, a signature or the log fails verification
├── Unavailable        the database or another part does not answer; try again
└── Fault              a mistake of the service itself
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem as the catalogue describes it; `subject` is its heading there."""

    kind: str
    family: str
    title: str
    meaning: str
    fix: str
    subject: str


@cache
def catalogue() -> Mapping[str, Problem]:
    """Every problem of `problems.toml` by its kind, in the file's order."""
    text = resources.files("registry").joinpath("problems.toml").read_text(encoding="utf-8")
    return {
        kind: Problem(kind, subject=subject["heading"], **entry)
        for subject in tomllib.loads(text).values()
        for kind, entry in subject.items()
        if kind != "heading"
    }


class RegistryError(Exception):
    """One refusal: a stable `kind`, what happened and why (`detail`), and what to do (`fix`).

    `facts` are for machines. The catalogue gives the title, and the detail and the fix where the
    place that raises the error gives none.
    """

    family = "fault"

    def __init__(self, kind: str, detail: str = "", fix: str = "", **facts: Any) -> None:
        problem = catalogue().get(kind)
        if problem is None or problem.family != self.family:
            # The detail may have been written for another audience, so it stays out of the answer.
            fault = Fault("problem-unlisted")
            fault.add_note(f"{type(self).__name__}({kind!r}) is not in registry/problems.toml.")
            raise fault
        self._describe(kind, problem.title, detail or problem.meaning, fix or problem.fix, facts)

    def _describe(
        self, kind: str, title: str, detail: str, fix: str, facts: dict[str, Any]
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.title = title
        self.detail = detail
        self.fix = fix
        self.facts = facts

    @classmethod
    def received(cls, kind: str, title: str, detail: str, fix: str, facts: dict[str, Any]) -> Self:
        """An error that another process raised; its catalogue may be newer than this one."""
        error = cls.__new__(cls)
        error._describe(kind, title, detail, fix, facts)
        return error

    def document(self) -> dict[str, Any]:
        """The members of an RFC 9457 problem document that are the same at every door."""
        return {
            "type": f"/problems/{self.kind}",
            "title": self.title,
            "detail": self.detail,
            "fix": self.fix,
            "family": self.family,
            "kind": self.kind,
            "facts": self.facts,
        }

    def __str__(self) -> str:
        return f"{self.detail} {self.fix}".strip()


class Invalid(RegistryError):
    """The request itself is wrong; sending it again cannot help."""

    family = "invalid"


class TooLarge(RegistryError):
    """More bytes than the limit allows."""

    family = "too-large"


class Unauthenticated(RegistryError):
    """The caller is unknown, or signed in too long ago for this act."""

    family = "unauthenticated"


class Forbidden(RegistryError):
    """The caller is known, but none of their roles allows this act."""

    family = "forbidden"


class NotFound(RegistryError):
    """No such thing; also the answer for a thing of another team, so that names do not leak."""

    family = "not-found"


class Conflict(RegistryError):
    """The state has changed, or the thing exists already."""

    family = "conflict"


class Refused(RegistryError):
    """A rule or a gate does not allow it; recorded in the audit log."""

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
            **facts,
        )
        self.defects = defects

    def groups(self) -> list[list[Defect]]:
        """The defects by file, rule and fix, in their order: what people read, once each."""
        groups: dict[tuple[str, str, str], list[Defect]] = {}
        for defect in self.defects:
            groups.setdefault((defect.file, defect.rule, defect.fix), []).append(defect)
        return list(groups.values())

    def document(self) -> dict[str, Any]:
        """The document of every error, with the list of defects."""
        return {**super().document(), "defects": [asdict(defect) for defect in self.defects]}


class Unverified(RegistryError):
    """Bytes, a signature or the log fail verification."""

    family = "unverified"


class Unavailable(RegistryError):
    """A part that the service depends on does not answer at the moment."""

    family = "unavailable"


class Fault(RegistryError):
    """A mistake of the service itself; the request id leads to the log line."""

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
"""The families whose errors need nothing but kind, detail, fix and facts."""


def problem(kind: str, detail: str = "", fix: str = "", **facts: Any) -> RegistryError:
    """The error of a kind, with the family that the catalogue gives it."""
    return FAMILIES[catalogue()[kind].family](kind, detail, fix, **facts)
