"""Serving profiles: profile add, ls, show, diff, engines."""

from __future__ import annotations

from pathlib import Path

import click

from registry.cli.output import emit, fields, json_option, table
from registry.cli.parameters import FILE
from registry.cli.session import connect, document


@click.group()
def profile() -> None:
    """Define and compare serving profiles: what a version may be served as.

    \b
    Example:
      countersign profile engines acme/claims@v3
    """


@profile.command("add")
@click.argument("ref", metavar="REF")
@click.option("--engine", required=True, help="vllm, sglang, tgi or transformers.")
@click.option("--build", required=True, help="The engine's release.")
@click.option("--dtype", help="bfloat16 (the default), float16 or float32.")
@click.option("--quantisation", help="How the engine quantises the weights.")
@click.option(
    "--system-prompt", type=FILE, help="A file with the text that precedes every conversation."
)
@click.option(
    "--decoding", type=FILE, help="YAML with temperature, top_p, max_tokens, stop and seed."
)
@click.option("--retrieval-index", metavar="sha256:...", help="The digest of the retrieval index.")
@click.option(
    "--policy-check",
    multiple=True,
    metavar="sha256:...",
    help="The digest of a policy check; repeatable.",
)
@click.option(
    "--served-base", metavar="REF", help="A verified quantisation to serve in place of the base."
)
@json_option
def add(
    ref: str,
    engine: str,
    build: str,
    dtype: str | None,
    quantisation: str | None,
    system_prompt: Path | None,
    decoding: Path | None,
    retrieval_index: str | None,
    policy_check: tuple[str, ...],
    served_base: str | None,
    as_json: bool,
) -> None:
    """Freeze one way to serve a version.

    A change of any part is a new profile.

    \b
    Example:
      countersign profile add acme/claims@v3 --engine vllm --build 0.32.0
    """
    parts = {
        "engine": engine,
        "build": build,
        "decoding": document(decoding),
        "policy_checks": list(policy_check),
    }
    for key, value in (
        ("dtype", dtype),
        ("quantisation", quantisation),
        ("retrieval_index", retrieval_index),
    ):
        if value is not None:
            parts[key] = value
    with connect() as registry:
        if system_prompt is not None:
            parts["system_prompt"] = f"sha256:{registry.put_file(system_prompt).sha256}"
        defined = registry.define_profile(ref, parts, served_base)
    if as_json:
        emit(defined)
    else:
        fields(
            f"{defined.version}  {defined.status}",
            [("Profile", defined.digest), ("Id", defined.id)],
        )


@profile.command("ls")
@click.argument("ref", metavar="REF")
@json_option
def list_profiles(ref: str, as_json: bool) -> None:
    """List the serving profiles of a version.

    \b
    Example:
      countersign profile ls acme/claims@v3
    """
    with connect() as registry:
        profiles = registry.profiles(ref)
    if as_json:
        emit(profiles)
        return
    rows = [
        (
            profile.digest,
            profile.engine,
            profile.build,
            profile.base,
            profile.created_by,
            profile.created_at,
        )
        for profile in profiles
    ]
    table(["Profile", "Engine", "Build", "Base", "Created by", "Created"], rows)


@profile.command("show")
@click.argument("name", metavar="DIGEST|ID")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show all parts of one serving profile.

    \b
    Example:
      countersign profile show sha256:<64 hex digits>
    """
    with connect() as registry:
        profile = registry.profile(name)
        prompt = (
            registry.system_prompt(name).text
            if profile.document["system_prompt"] and not as_json
            else None
        )
    if as_json:
        emit(profile)
        return
    fields(
        profile.digest,
        [
            ("Version", profile.version),
            ("Base", profile.base),
            ("Created by", profile.created_by),
            ("Created", profile.created_at),
            *(
                (key.replace("_", " ").capitalize(), value)
                for key, value in profile.document.items()
                if key not in ("version", "base", "format") and value not in (None, [], {})
            ),
        ],
    )
    if prompt is not None:
        click.echo(f"\n{prompt}")


@profile.command("diff")
@click.argument("before", metavar="DIGEST|ID")
@click.argument("after", metavar="DIGEST|ID")
@json_option
def diff(before: str, after: str, as_json: bool) -> None:
    """Show which parts of two serving profiles differ.

    \b
    Example:
      countersign profile diff sha256:<64 hex digits> sha256:<64 hex digits>
    """
    with connect() as registry:
        comparison = registry.compare_profiles(before, after)
    if as_json:
        emit(comparison)
        return
    rows = [(part.part, part.before, part.after) for part in comparison.differences]
    table(["Part", "Before", "After"], rows, "They are the same profile.")
    if comparison.prompt:
        click.echo("\n" + "\n".join(comparison.prompt))


@profile.command("engines")
@click.argument("ref", metavar="REF")
@json_option
def engines(ref: str, as_json: bool) -> None:
    """Show which engines can serve a version, and why others cannot.

    \b
    Example:
      countersign profile engines acme/claims@v3
    """
    with connect() as registry:
        verdicts = registry.engines(ref)
    if as_json:
        emit(verdicts)
        return
    rows = [
        (
            verdict.engine,
            verdict.verdict,
            "; ".join(reason.detail for reason in verdict.reasons),
            verdict.needs,
        )
        for verdict in verdicts
    ]
    table(["Engine", "Verdict", "Why", "Needs"], rows)
