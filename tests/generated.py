"""Pages of docs/ that are written by code: `make docs` writes them, a test holds them fresh.

A page joins by an entry in PAGES: its file name in docs/, and the function that returns its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from textwrap import fill

from registry.api.problems import STATUSES
from registry.cli.errors import EXITS
from registry.errors import BundleRejected, RegistryError, catalogue
from registry.gateway.problems import STATUSES as GATEWAY_STATUSES

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 120


def problems() -> str:
    """docs/problems.md, from the catalogue and the doors' tables of statuses."""
    return "\n".join(_problems())


def _problems() -> Iterator[str]:
    yield "# Problems\n"
    yield _paragraph(
        "Every way Countersign says no. An answer carries a *kind* (the headings below), a title, what happened and "
        "why, and what to do. REST and the gateway answer `application/problem+json` with `type` `/problems/<kind>`, "
        "where a running registry explains the kind; the command line prints three lines, or with `--json` the same "
        "object on stderr, and ends with the exit status of the kind's *family*."
    )
    yield _paragraph(
        "Refusals (families *refused*, *forbidden*, *rejected* and *unverified*) are kept in the audit log; wrong input and things "
        "not found leave no trace. `make docs` writes this page from `registry/problems.toml`; the code can raise "
        "nothing that is not listed there. [countersign-verify.md](countersign-verify.md) explains what the offline "
        "verifier says."
    )
    yield "## Families\n"
    yield "| Family | Meaning | Exit status | HTTP | Gateway |"
    yield "|---|---|---|---|---|"
    for cls in _families():
        meaning = (cls.__doc__ or "").partition(".")[0].partition(";")[0]
        exit_status, http, gateway = (
            EXITS[cls.family][0],
            STATUSES[cls.family],
            GATEWAY_STATUSES[cls.family],
        )
        yield f"| {cls.family} | {' '.join(meaning.split())} | {exit_status} | {http} | {gateway} |"
    yield "\n`unavailable` comes with `Retry-After`.\n"
    for subject, entries in groupby(catalogue().values(), lambda entry: entry.subject):
        yield f"## {subject}\n"
        for entry in entries:
            yield f"### {entry.kind}"
            yield f"*{entry.title}* ({entry.family})\n"
            yield _paragraph(f"{entry.meaning} {entry.fix}")


def _families() -> Iterator[type[RegistryError]]:
    yield from sorted(RegistryError.__subclasses__(), key=lambda cls: EXITS[cls.family][0])
    assert BundleRejected in RegistryError.__subclasses__()


def _paragraph(text: str) -> str:
    # A line that began with these would be a list or a quotation.
    wrapped = fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    assert not any(line.startswith(("- ", "+ ", "* ", "> ", "#")) for line in wrapped.splitlines())
    return wrapped + "\n"


PAGES: dict[str, Callable[[], str]] = {"problems.md": problems}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
