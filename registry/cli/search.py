"""`search`: versions by what is known of them."""

from __future__ import annotations

from typing import Any

import click

from registry.cli.output import emit, json_option, note, state, table
from registry.cli.session import connect
from registry.rules.searches import KINDS
from registry.rules.versions import State
from registry.views.search import FacetsView, VersionHit

WIDEST = 40  # characters of one tag or licence; --json has them whole


@click.command()
@click.argument("text", metavar="[TEXT]", required=False)
@click.option("--name", help="The exact name, or team/name.")
@click.option("--kind", type=click.Choice(KINDS), help="Only of this kind.")
@click.option("--team", help="Only of this team.")
@click.option("--tag", multiple=True, metavar="KEY[:VALUE]", help="Has this tag; may be repeated.")
@click.option(
    "--base", metavar="REF", help="Stands on this base model: team/name, or one version of it."
)
@click.option("--dataset", metavar="REF", help="Was tuned on this data set.")
@click.option("--licence", help="Has this licence.")
@click.option("--domain", help="Is of this business area.")
@click.option(
    "--method", help="Was tuned so: lora, adalora, prefix, prompt, bottleneck, bias or norm."
)
@click.option("--variant", help="In this variant: plain, dora or rslora.")
@click.option("--risk", metavar="LEVEL", help="Carries a risk of this level, like high.")
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME>=X",
    help="Its newest eval run says so; may be repeated.",
)
@click.option(
    "--state",
    "in_state",
    type=click.Choice([known.value for known in State]),
    help="Only in this state.",
)
@click.option(
    "--digest",
    metavar="HEX",
    help="Its manifest, tensor root or a file begins so, 6 digits at least.",
)
@click.option("--by", metavar="ACCOUNT", help="Was added by this account.")
@click.option("--since", metavar="DATE", help="Was added then or later, UTC: 2026-11-22.")
@click.option("--until", metavar="DATE", help="Was added before then.")
@click.option(
    "--sort",
    default="created",
    show_default=True,
    help="created (newest first), name, metric:NAME or metric:NAME:lowest.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="So many at most."
)
@click.option(
    "--facets", is_flag=True, help="Count what the versions found have in common instead."
)
@json_option
def search(
    text: str | None,
    tag: tuple[str, ...],
    metric: tuple[str, ...],
    in_state: str | None,
    limit: int,
    facets: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Find versions by name, tag, base, data set, licence, metric, state or digest.

    TEXT is any part of a name, its team or its domain, of three letters or more; fewer must begin a
    word.

    \b
    Example:
      countersign search claims --tag topic:claims --metric 'exact_match>=0.8'
    """
    filters |= {
        "q": text,
        "tag": list(tag) or None,
        "metric": list(metric) or None,
        "state": in_state,
    }
    with connect() as registry:
        if facets:
            counted = registry.search_page(**filters, limit=1, facets=True).facets
            assert counted is not None
            _counts(counted, as_json)
            return
        found = list(registry.search(limit=limit + 1, **filters))
    if as_json:
        emit(found[:limit])
    else:
        _list(found[:limit])
    if len(found) > limit:
        note(
            f"More than {limit} match: raise --limit, or add a filter; --facets shows what they "
            "have in common."
        )


def _list(found: list[VersionHit]) -> None:
    """A row a version; a column of base, licence, metrics or tags only where some row has one."""
    columns: list[tuple[str, list[Any]]] = [
        ("Version", [one.ref for one in found]),
        ("Kind", [f"{one.kind} ({_tuning(one)})" if one.method else one.kind for one in found]),
        ("State", [state(one.state) for one in found]),
        ("Base", [one.base for one in found]),
        ("Licence", [_cut(one.licence) for one in found]),
    ]
    columns += [
        (name, [one.metrics.get(name) for one in found])
        for name in sorted({n for one in found for n in one.metrics})
    ]
    columns += [
        ("Tags", [[_cut(f"{key}={value}") for key, value in one.tags.items()] for one in found]),
        ("Added", [one.created_at for one in found]),
    ]
    shown = [
        (head, values)
        for head, values in columns
        if any(value not in (None, [], "") for value in values)
    ]
    table(
        [head for head, _ in shown],
        list(zip(*(values for _, values in shown), strict=True)),
        "Nothing matches. Take a filter away, or look for fewer letters of the name.",
    )


def _tuning(one: VersionHit) -> str:
    return f"{one.method}, {one.variant}" if one.variant not in (None, "plain") else str(one.method)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _counts(counted: FacetsView, as_json: bool) -> None:
    if as_json:
        emit(counted)
        return
    rows = [
        (facet, _cut(one.value), f"{one.count:,}{'+' if one.at_least else ''}")
        for facet, values in counted.values.items()
        for one in values
    ]
    table(["Facet", "Value", "Versions"], rows, "Nothing matches.")
    note(f"{counted.total:,}{'+' if counted.at_least else ''} versions match.")
