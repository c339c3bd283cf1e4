"""`search`: versions by what is known of them."""

from __future__ import annotations

import click

from registry.cli.output import emit, json_option, state, table
from registry.cli.session import connect


@click.command()
@click.argument("text", metavar="[TEXT]", required=False)
@click.option("--name", help="The exact name, or team/name.")
@click.option("--kind", type=click.Choice(["base", "adapter", "checkpoint"]), help="Only of this kind.")
@click.option("--team", help="Only of this team.")
@click.option("--tag", multiple=True, metavar="KEY[:VALUE]", help="Has this tag; may be repeated.")
@click.option("--base", metavar="REF", help="Stands on this base model.")
@click.option("--dataset", metavar="REF", help="Was tuned on this data set.")
@click.option("--licence", help="Has this licence.")
@click.option("--metric", multiple=True, metavar="NAME>=X", help="Its newest eval run says so; may be repeated.")
@click.option("--state", "in_state", help="draft, registered, deprecated, recalled or deleted.")
@click.option("--digest", metavar="HEX", help="Its manifest or tensor root begins so, 6 digits at least.")
@click.option("--sort", type=click.Choice(["created", "name"]), default="created", help="Newest first, or by name.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="So many at most.")
@click.option("--facets", is_flag=True, help="Count what the versions found have in common instead.")
@json_option
def search(
    text: str | None, name: str | None, kind: str | None, team: str | None, tag: tuple[str, ...], base: str | None,
    dataset: str | None, licence: str | None, metric: tuple[str, ...], in_state: str | None, digest: str | None,
    sort: str, limit: int, facets: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find versions by name, tag, base, data set, licence, metric, state or digest.

    \b
    Example:
      countersign search claims --tag topic:claims --metric 'exact_match>=0.8'
    """
    filters = {
        "q": text, "name": name, "kind": kind, "team": team, "tag": list(tag) or None, "base": base,
        "dataset": dataset, "licence": licence, "metric": list(metric) or None, "state": in_state, "digest": digest,
        "sort": sort,
    }  # fmt: skip
    with connect() as registry:
        if facets:
            counted = registry.search_page(**filters, limit=1, facets=True).facets
            assert counted is not None
            if as_json:
                emit(counted)
                return
            rows = [(facet, one.value, f"{one.count}{'+' if one.at_least else ''}")
                    for facet, values in counted.values.items() for one in values]  # fmt: skip
            table(["Facet", "Value", "Versions"], rows, "Nothing matches.")
            return
        found = list(registry.search(limit=limit, **filters))
    if as_json:
        emit(found)
        return
    table(["Version", "Kind", "State", "Base", "Licence", "Tags", "Since"],
          [(one.ref, one.kind, state(one.state), one.base, one.licence, [f"{key}={value}" for key, value in one.tags.items()],
            one.created_at) for one in found], "Nothing matches.")  # fmt: skip
