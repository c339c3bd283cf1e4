"""Base models, adapters and checkpoints, with the same verbs for each; and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import chat_templates, deletions, deprecations, imports, tags
from registry.cli.added import refusal_as_document, show_added
from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.parameters import FILE, Kind
from registry.cli.session import connect, document
from registry.errors import Unverified

if TYPE_CHECKING:
    from registry.views.versions import LineView, VerifiedView, VersionView

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _group(kind: Kind, plural: str, example: str) -> click.Group:
    """The group of one kind with all its verbs."""

    @click.group(
        kind,
        help=f"Register, list, show and retire {plural}.\n\n\b\nExample:\n  countersign {kind} ls",
    )
    def group() -> None: ...

    @group.command(
        "add",
        help="Register a folder of files as a version.\n\n"
        "Missing descriptions are listed; the version stays a draft until they are supplied.\n\n"
        f"\b\nExample:\n  countersign {kind} add ./files --name {example} --meta meta.yaml",
    )
    @click.argument("directory", metavar="DIR", type=FOLDER)
    @click.option("--name", required=True, metavar="team/name", help="The line of the new version.")
    @click.option("--base", "base_ref", metavar="REF", help="The base model version it is for.")
    @click.option("--domain", help="The business domain of the line.")
    @click.option("--meta", type=FILE, help="YAML with purpose, licence, source and the like.")
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
        help="List the lines, or the versions of one line.\n\n"
        f"\b\nExample:\n  countersign {kind} ls\n  countersign {kind} ls {example}",
    )
    @click.argument("line", metavar="[team/name]", required=False)
    @click.option(
        "-q", "--search", metavar="TEXT", help="Only lines whose name contains this text."
    )
    @json_option
    def list_lines(line: str | None, search: str | None, as_json: bool) -> None:
        with connect() as registry:
            if line is not None:
                versions = registry.versions(line)
                if as_json:
                    emit(versions)
                else:
                    _list_versions(versions)
                return
            lines = registry.lines(kind, search)
        if as_json:
            emit(lines)
        else:
            _list_lines(lines)

    @group.command(
        "show",
        help="Show all properties of one version.\n\n"
        f"\b\nExample:\n  countersign {kind} show {example}@v1",
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
        help="Read every byte of a version again and compare all digests.\n\n"
        f"\b\nExample:\n  countersign {kind} verify {example}@v1",
    )
    @click.argument("ref", metavar="REF")
    @json_option
    def verify_version(ref: str, as_json: bool) -> None:
        _verify(ref, as_json)

    imports.attach(group, kind, example)
    tags.attach(group, kind, example)
    chat_templates.attach(group, kind, example)
    deprecations.attach(group, kind, example)
    deletions.attach(group, kind, example)
    return group


base = _group("base", "base models", "acme/smollm2")
adapter = _group("adapter", "adapters", "acme/claims")
checkpoint = _group("checkpoint", "full weights", "acme/claims-merged")


@click.command()
@click.argument("ref", metavar="REF")
@json_option
def verify(ref: str, as_json: bool) -> None:
    """Read every byte again and compare all digests.

    REF is a version of a base model, an adapter, a checkpoint or a data set.

    \b
    Example:
      countersign verify acme/claims@v3
    """
    _verify(ref, as_json)


def _list_lines(lines: list[LineView]) -> None:
    rows = [
        (
            line.name,
            line.domain,
            line.newest,
            state(line.newest_state) if line.newest_state else None,
            line.serves,
        )
        for line in lines
    ]
    table(["Name", "Domain", "Newest", "State", "Serves"], rows)


def _list_versions(versions: list[VersionView]) -> None:
    rows = [
        (
            version.ref,
            state(version.state),
            version.manifest_digest,
            version.created_by,
            version.created_at,
        )
        for version in versions
    ]
    table(["Version", "State", "Digest", "Created by", "Created"], rows)


def _show_version(version: VersionView) -> None:
    fields(
        f"{version.ref}  {state(version.state)}",
        [
            ("Digest", version.manifest_digest),
            ("Tensor root", version.tensor_root),
            ("Base", version.base),
            ("Base root", version.base_root),
            ("Created by", version.created_by),
            ("Created", version.created_at),
            ("Training run", version.training_run),
            ("Serves", version.serves),
            ("Recalled because", version.recall_reason),
            ("Deprecated because", version.deprecation_reason),
            *(("Risk", risk) for risk in version.risks),
            ("Keys left out", ", ".join(version.facts.get("dropped_keys") or ()) or None),
            ("Effect", _effect(version)),
            ("Chat template", _template(version)),
            ("Quantised from", _descent(version)),
            *((f"meta {name}", value) for name, value in version.meta.items()),
        ],
    )
    files = [(file.path, file.sha256, file.size) for file in version.files]
    table(["File", "SHA-256", "Bytes"], files)
    if version.left_out:
        left_out = [
            (entry.path, entry.size or None, entry.companion or entry.why)
            for entry in version.left_out
        ]
        table(["Left out", "Bytes", "Why, or what it holds"], left_out)
    if version.approvals:
        rows = [
            (approval.review, approval.environment, state(approval.state), approval.expires_at)
            for approval in version.approvals
        ]
        table(["Review", "Environment", "State", "Expires"], rows)


def _effect(version: VersionView) -> str | None:
    """What the version changes of its base, by its weights and by what a trainer measured."""
    effect = version.effect
    if effect is None:
        return None
    if effect.same_as is not None:
        words = f"none: the weights of {effect.same_as}"
    elif effect.parts is None or effect.idle is None:
        words = "other weights than any model registered before it"
    else:
        words = f"{effect.parts - effect.idle} of {effect.parts} adapted parts changed"
    if effect.measured is None:
        return f"{words}, not measured"
    return (
        f"{words}; logits moved by at most {effect.measured.largest:.3g}, "
        f"{effect.measured.mean:.3g} on average, on {effect.measured.prompts} prompts"
    )


def _template(version: VersionView) -> str | None:
    """Whose chat template the version uses, if it contains one."""
    template = version.facts.get("chat_template")
    if not template or "own" not in template:
        return template["digest"] if template else None
    whose = (
        f"its own (see countersign adapter template {version.ref})"
        if template["own"]
        else "its base's"
    )
    return f"{template['digest']}, {whose}"


def _descent(version: VersionView) -> str | None:
    """What it is a quantisation of. A claim is always shown as one."""
    descent = version.facts.get("descent")
    if not descent:
        return None
    if descent["grade"] == "verified":
        return f"{descent['of']}, verified from the bytes ({', '.join(descent['recipes'])})"
    return (
        f"{descent['of']}, claimed only: {descent['unchecked_count']} parts could not be verified, "
        f"such as {descent['unchecked'][0]}"
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
            f"{verified.ref} differs from what was registered: {'; '.join(verified.problems)}.",
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
        [(check.check, state(check.outcome), check.detail) for check in verified.checks],
    )
