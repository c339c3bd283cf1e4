"""Base models, adapters and checkpoints: the same four verbs for each, and `verify` for
anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from registry.cli import chat_templates, deprecations, imports, retention, tags
from registry.cli.added import FILE, refusal_as_document, show_added
from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.session import connect, document
from registry.errors import Unverified

if TYPE_CHECKING:
    from registry.views.versions import VerifiedView, VersionView

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _group(kind: Literal["base", "adapter", "checkpoint"], title: str, example: str) -> click.Group:
    """The group of one kind: add, ls, show, verify."""

    @click.group(
        kind, help=f"{title}: add, list, show, verify.\n\n\b\nExample:\n  countersign {kind} ls"
    )
    def group() -> None: ...

    @group.command(
        "add",
        help="Send a folder of files and register them as a version; what is missing is listed as "
        "findings."
        f"\n\n\b\nExample:\n  countersign {kind} add ./files --name {example} --meta meta.yaml",
    )
    @click.argument("directory", metavar="DIR", type=FOLDER)
    @click.option(
        "--name", required=True, metavar="team/name", help="The line of work this is a version of."
    )
    @click.option("--base", "base_ref", metavar="REF", help="The base model version it stands on.")
    @click.option("--domain", help="The business domain it serves.")
    @click.option("--meta", type=FILE, help="Purpose, licence, source and the like, as YAML.")
    @imports.quantised_option(kind)
    @json_option
    def add(
        directory: Path,
        name: str,
        base_ref: str | None,
        domain: str | None,
        meta: Path | None,
        as_json: bool,
        quantised_of: str | None = None,
    ) -> None:
        from registry.cli.progress import bar
        from registry.client import NewVersion
        from registry.client.versions import bundle_files

        new = NewVersion(name, base_ref, domain, document(meta), quantised_of)
        size = sum(path.stat().st_size for path, _ in bundle_files(directory))
        with (
            connect() as registry,
            refusal_as_document(as_json),
            bar(f"Sending {directory}", size, as_json) as step,
        ):
            added = registry.add(kind, directory, new, on_bytes=step)
        show_added(added, as_json)

    @group.command(
        "ls",
        help="List lines of work, or the versions of one."
        f"\n\n\b\nExample:\n  countersign {kind} ls\n  countersign {kind} ls {example}",
    )
    @click.argument("line", metavar="[team/name]", required=False)
    @click.option("-q", "--search", metavar="TEXT", help="Only lines that match.")
    @json_option
    def list_lines(line: str | None, search: str | None, as_json: bool) -> None:
        with connect() as registry:
            if line is not None:
                versions = registry.versions(line)
                if as_json:
                    emit(versions)
                else:
                    rows = [
                        (v.ref, state(v.state), v.manifest_digest, v.created_by, v.created_at)
                        for v in versions
                    ]
                    table(["Version", "State", "Digest", "By", "Since"], rows)
                return
            lines = registry.lines(kind, search)
        if as_json:
            emit(lines)
        else:
            rows_ = [
                (
                    one.name,
                    one.domain,
                    one.newest,
                    state(one.newest_state) if one.newest_state else None,
                    one.serves,
                )
                for one in lines
            ]
            table(["Name", "Domain", "Newest", "State", "Serves"], rows_)

    @group.command(
        "show",
        help=f"Show one version whole.\n\n\b\nExample:\n  countersign {kind} show {example}@v1",
    )
    @click.argument("ref", metavar="REF")
    @json_option
    def show(ref: str, as_json: bool) -> None:
        with connect() as registry:
            version = registry.version(ref)
        if as_json:
            emit(version)
        else:
            _show_version(version)

    @group.command(
        "verify",
        help="Read every byte of a version again and compare all digests."
        f"\n\n\b\nExample:\n  countersign {kind} verify {example}@v1",
    )
    @click.argument("ref", metavar="REF")
    @json_option
    def verify_one(ref: str, as_json: bool) -> None:
        _verify(ref, as_json)

    imports.attach(group, kind, example)
    tags.attach(group, kind, example)
    chat_templates.attach(group, kind, example)
    deprecations.attach(group, kind, example)
    retention.attach(group, kind, example)
    return group


base = _group("base", "Base models", "acme/smollm2")
adapter = _group("adapter", "Adapters", "acme/claims")
checkpoint = _group("checkpoint", "Full weights", "acme/claims-merged")


@click.command()
@click.argument("ref", metavar="REF")
@json_option
def verify(ref: str, as_json: bool) -> None:
    """Read every byte of a thing again and compare all digests.

    \b
    Example:
      countersign verify acme/claims@v3
    """
    _verify(ref, as_json)


def _show_version(version: VersionView) -> None:
    fields(
        f"{version.ref}  {state(version.state)}",
        [
            ("Digest", version.manifest_digest),
            ("Tensor root", version.tensor_root),
            ("Base", version.base),
            ("Base root", version.base_root),
            ("Made by", version.created_by),
            ("Since", version.created_at),
            ("Training run", version.training_run),
            ("Serves", version.serves),
            ("Recalled because", version.recall_reason),
            ("Deprecated because", version.deprecation_reason),
            *(("Risk", risk) for risk in version.facts.get("risks") or ()),
            ("Chat template", _template(version)),
            ("Quantised from", _descent(version)),
            *((f"meta {name}", value) for name, value in version.meta.items()),
        ],
    )
    table(["File", "SHA-256", "Bytes"], [(one.path, one.sha256, one.size) for one in version.files])
    if version.approvals:
        rows = [
            (one.review, one.environment, state(one.state), one.expires_at)
            for one in version.approvals
        ]
        table(["Review", "Environment", "State", "Expires"], rows)


def _template(version: VersionView) -> str | None:
    """Whose chat template it speaks by, where it brings one at all."""
    told = version.facts.get("chat_template")
    if not told or "own" not in told:
        return told["digest"] if told else None
    whose = (
        f"its own: see countersign adapter template {version.ref}" if told["own"] else "its base's"
    )
    return f"{told['digest']}, {whose}"


def _descent(version: VersionView) -> str | None:
    """Of what it is a quantisation, and how surely; a claim is never shown without its word."""
    told = version.facts.get("descent")
    if not told:
        return None
    if told["grade"] == "verified":
        return f"{told['of']}, verified from the bytes ({', '.join(told['recipes'])})"
    return (
        f"{told['of']}, claimed only: {told['unchecked_count']} things could not be worked "
        f"out, such as {told['unchecked'][0]}"
    )


def _verify(ref: str, as_json: bool) -> None:
    with connect() as registry:
        verified = registry.verify(ref)
    if as_json:
        emit(verified)
    else:
        _show_verified(verified)
    if not verified.ok:
        raise Unverified(
            "bytes-changed",
            f"{verified.ref} is not what was registered: {'; '.join(verified.problems)}.",
            problems=verified.problems,
        )


def _show_verified(verified: VerifiedView) -> None:
    fields(
        f"{verified.ref}  {state('valid' if verified.ok else 'broken')}",
        [
            ("Files", verified.files),
            ("Bytes", verified.bytes),
            ("Digest", verified.manifest_digest),
            ("Root", verified.root),
        ],
    )
    table(
        ["Check", "Outcome", "Detail"],
        [(one.check, state(one.outcome), one.detail) for one in verified.checks],
    )
