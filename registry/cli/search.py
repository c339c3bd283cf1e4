"""Search: find versions by their properties."""

from __future__ import annotations

from typing import Any

import click

from registry.cli.output import emit, json_option, note, state, table
from registry.cli.session import connect
from registry.rules.searches import KINDS
from registry.rules.versions import State
from registry.views.search import FacetsView, VersionHit

MAX_CELL_CHARACTERS = 40
"""Longer tags and licences are shortened in the table; --json prints them whole."""


@click.command()
@click.argument("text", metavar="[TEXT]", required=False)
@click.option("--name", help="The exact name, or team/name.")
@click.option("--kind", type=click.Choice(KINDS), help="Only of this kind.")
@click.option("--team", help="Only of this team.")
@click.option("--tag", multiple=True, metavar="KEY[:VALUE]", help="With this tag; repeatable.")
@click.option("--base", metavar="REF", help="For this base model: team/name, or one version of it.")
@click.option("--dataset", metavar="REF", help="Tuned on this data set.")
@click.option("--licence", help="With this licence.")
@click.option("--domain", help="Of this business domain.")
@click.option(
    "--method",
    help="Tuned with this method: lora, adalora, ia3, prefix, prompt, bottleneck, bias or norm.",
)
@click.option("--variant", help="Tuned with this variant: plain, dora or rslora.")
@click.option("--risk", metavar="LEVEL", help="With a risk of this level, such as high.")
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME>=X",
    help="With this value in its newest eval run; repeatable.",
)
@click.option(
    "--state",
    "in_state",
    type=click.Choice([each.value for each in State]),
    help="Only in this state.",
)
@click.option(
    "--digest",
    metavar="HEX",
    help="With a manifest, tensor root or file whose digest begins so; at least 6 digits.",
)
@click.option("--by", metavar="ACCOUNT", help="Added by this account.")
@click.option("--since", metavar="DATE", help="Added on this date (UTC) or later: 2026-11-22.")
@click.option("--until", metavar="DATE", help="Added before this date (UTC).")
@click.option(
    "--sort",
    default="created",
    show_default=True,
    help="created (newest first), name, metric:NAME or metric:NAME:lowest.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="The maximum number of versions.",
)
@click.option(
    "--facets", is_flag=True, help="Count the values that the matching versions share instead."
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

    TEXT is any part of a name, its team or its domain. A text of one or two letters matches only
    the beginning of a word.

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
            counts = registry.search_page(**filters, limit=1, facets=True).facets
            assert counts is not None
            _show_facets(counts, as_json)
            return
        hits = list(registry.search(limit=limit + 1, **filters))
    if as_json:
        emit(hits[:limit])
    else:
        _list(hits[:limit])
    if len(hits) > limit:
        note(
            f"More than {limit} match. Raise --limit, or add a filter: --facets shows the values "
            "that they share."
        )


def _list(hits: list[VersionHit]) -> None:
    """Print one row per version, and only the columns in which some row has a value."""
    columns: list[tuple[str, list[Any]]] = [
        ("Version", [hit.ref for hit in hits]),
        ("Kind", [f"{hit.kind} ({_tuning(hit)})" if hit.method else hit.kind for hit in hits]),
        ("State", [state(hit.state) for hit in hits]),
        ("Base", [hit.base for hit in hits]),
        ("Licence", [_shortened(hit.licence) for hit in hits]),
    ]
    columns += [
        (name, [hit.metrics.get(name) for hit in hits])
        for name in sorted({name for hit in hits for name in hit.metrics})
    ]
    columns += [
        (
            "Tags",
            [[_shortened(f"{key}={value}") for key, value in hit.tags.items()] for hit in hits],
        ),
        ("Added", [hit.created_at for hit in hits]),
    ]
    shown = [
        (head, values)
        for head, values in columns
        if any(value not in (None, [], "") for value in values)
    ]
    table(
        [head for head, _ in shown],
        list(zip(*(values for _, values in shown), strict=True)),
        "Nothing matches. Remove a filter, or search for a shorter part of the name.",
    )


def _tuning(hit: VersionHit) -> str:
    return f"{hit.method}, {hit.variant}" if hit.variant not in (None, "plain") else str(hit.method)


def _shortened(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_CELL_CHARACTERS:
        return text
    return f"{text[: MAX_CELL_CHARACTERS - 1]}…"


def _show_facets(facets: FacetsView, as_json: bool) -> None:
    if as_json:
        emit(facets)
        return
    rows = [
        (facet, _shortened(count.value), f"{count.count:,}{'+' if count.at_least else ''}")
        for facet, counts in facets.values.items()
        for count in counts
    ]
    table(["Facet", "Value", "Versions"], rows, "Nothing matches.")
    note(f"{facets.total:,}{'+' if facets.at_least else ''} versions match.")
