"""References: `team/name`, `team/name@v3`, `team/name@production` and `sha256:<hex>`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import Invalid

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
VERSION = re.compile(r"v([1-9][0-9]{0,8})")
PINNED = re.compile(r"(.+)\.v([1-9][0-9]{0,8})")
"""`name.v3`: clients of the Hub that know no revisions ask for version 3 by this name."""
UNPULLABLE = re.compile(r"--|\.\.|\.git$")
"""What no client of the Hub can ask for: huggingface_hub refuses such a name before any request."""
UNPULLABLE_NAMES = "clients of the Hub refuse a name with '--' or '..', or with '.git' at its end"
RESERVED_TEAMS = frozenset(
    {
        "adapters",
        "api",
        "audit",
        "bases",
        "buckets",
        "checkpoints",
        "datasets",
        "deployments",
        "find",
        "healthz",
        "kernels",
        "login",
        "logout",
        "metrics",
        "models",
        "ofrep",
        "policies",
        "problems",
        "profiles",
        "readyz",
        "records",
        "retention",
        "reviews",
        "runs",
        "search",
        "settings",
        "spaces",
        "static",
        "suites",
        "use-cases",
        "v1",
    }
)
"""First segments of the paths that Countersign, its gateway and clients of the Hub use otherwise.

A client asks for the files of a repository at /team/name/resolve/..., and /adapters/x/resolve/...
is an adapter's page. A test compares them with the routes.
"""
DIGEST = re.compile(r"sha256:([0-9a-f]{8,64})")
ENVIRONMENTS = ("dev", "staging", "production")


@dataclass(frozen=True, slots=True)
class Ref:
    """A parsed reference: a line, one of its versions, a channel, or a digest of 8 digits up."""

    team: str | None = None
    name: str | None = None
    number: int | None = None
    channel: str | None = None
    digest: str | None = None

    @property
    def line(self) -> str:
        return f"{self.team}/{self.name}"

    def __str__(self) -> str:
        if self.team is None:
            return f"sha256:{self.digest}"
        if self.number is not None:
            return f"{self.line}@v{self.number}"
        if self.channel is not None:
            return f"{self.line}@{self.channel}"
        return f"{self.line}@sha256:{self.digest}" if self.digest else self.line


def _bad(text: str, why: str) -> Invalid:
    return Invalid(
        "bad-reference",
        f"'{text[:120]}' is not a reference: {why}.",
    )


def parse_ref(text: str) -> Ref:
    """Read any reference; raises Invalid `bad-reference`, which says what is wrong with it."""
    if digest := DIGEST.fullmatch(text):
        return Ref(digest=digest[1])
    line, at, selector = text.partition("@")
    team, slash, name = line.partition("/")
    if not slash or not NAME.fullmatch(team) or not NAME.fullmatch(name):
        raise _bad(
            text,
            "the name must be team/name of lower-case letters, digits, dots, dashes, underscores",
        )
    if not at:
        return Ref(team, name)
    if number := VERSION.fullmatch(selector):
        return Ref(team, name, number=int(number[1]))
    if digest := DIGEST.fullmatch(selector):
        return Ref(team, name, digest=digest[1])
    if NAME.fullmatch(selector):
        return Ref(team, name, channel=selector)
    raise _bad(text, f"'{selector[:40]}' names no version and no channel")


def parse_line(text: str) -> Ref:
    """Read `team/name`; any other reference is Invalid `bad-reference`."""
    ref = parse_ref(text)
    if ref.team is None or ref.number or ref.channel or ref.digest:
        raise _bad(text, "only team/name is allowed here")
    return ref


def check_new_line(ref: Ref) -> str:
    """Check the name of a new line and return it; raises Invalid `bad-line-name` or `bad-team`.

    A line cannot be renamed, so a name that no client of the Hub can ask for is refused before
    there is anything to pull. Nor may a line be called like a version of another line: who pulls
    `claims.v3` would get something else.
    """
    assert ref.team is not None and ref.name is not None
    if ref.team in RESERVED_TEAMS:
        why = f"paths that begin with /{ref.team} are Countersign's own"
        raise Invalid("bad-team", f"'{ref.team}' cannot have a line: {why}.")
    if UNPULLABLE.search(ref.team):
        raise Invalid("bad-team", f"'{ref.team}' cannot have a line: {UNPULLABLE_NAMES}.")
    if PINNED.fullmatch(ref.name):
        raise Invalid(
            "bad-line-name",
            f"'{ref.name}' cannot name a line: it is read as one version of another line.",
        )
    if UNPULLABLE.search(ref.name):
        raise Invalid(
            "bad-line-name",
            f"'{ref.name}' cannot name a line: {UNPULLABLE_NAMES}, so nobody could pull it.",
        )
    return ref.name


def line_domain(present: str | None, declared: object) -> str | None:
    """The business domain of a line, which is set once and then kept.

    It is set when the line's first version is added, or when a version that began without a domain
    is completed. At most 200 characters of `declared` count.
    """
    return present or (declared.strip()[:200] or None if isinstance(declared, str) else None)


def repository(ref: str) -> str:
    """The one-version repository of a version: `team/name.v3` for `team/name@v3`.

    Clients without revisions, and those that ignore them, can name a version in no other way.
    """
    version = parse_ref(ref)
    assert version.number is not None, ref
    return f"{version.line}.v{version.number}"


def read_repository(team: str, name: str) -> Ref | None:
    """The line, or its one version, that a repository of the Hub's protocol names.

    None for what names neither. No line is called `name.v3` (see `check_new_line`), so a
    repository has one meaning.
    """
    virtual = PINNED.fullmatch(name)
    line, number = (virtual[1], int(virtual[2])) if virtual else (name, None)
    if not NAME.fullmatch(team) or not NAME.fullmatch(line):
        return None
    return Ref(team, line, number=number)


def check_channel(name: str) -> str:
    """Check the name of a channel; raises Invalid `bad-channel-name`.

    It must not look like a version or a digest, or `team/name@v7` would have two meanings.
    """
    numbered = name.startswith("v") and name[1:].isdigit()
    if not NAME.fullmatch(name) or numbered or name.startswith(("sha256", "v0", "draft-")):
        raise Invalid(
            "bad-channel-name",
            f"'{name[:60]}' cannot name a channel.",
        )
    return name


def check_environment(name: str) -> str:
    """Check the name of an environment; raises Invalid `bad-environment`."""
    if name not in ENVIRONMENTS:
        raise Invalid(
            "bad-environment",
            f"There is no environment '{name[:60]}'.",
            f"Use one of {', '.join(ENVIRONMENTS)}.",
        )
    return name


def commit(manifest_digest: str) -> str:
    """A version's commit id for clients of the Hub: the first 40 hex digits of its manifest digest.

    Clients treat 40 hex digits as an immutable commit, and never ask again for one they have.
    """
    return manifest_digest.removeprefix("sha256:")[:40]
