"""`ctxindex search`: the chunks that answer a question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.options import SectionedCommand, device_option, json_option, model_option, store_options, trust_option
from ctxindex.cli.output import print_json, print_passage

if TYPE_CHECKING:
    from ctxindex.types import Hit


@click.command("search", cls=SectionedCommand)
@click.argument("query")
@click.option("-k", "k", type=click.IntRange(min=1), default=5, show_default=True, help="Hits to return.")
@click.option(
    "--filter", "conditions", multiple=True, metavar="KEY=VALUE", help="Also !=, >, >=, <, <=; may be repeated."
)
@store_options
@model_option("Where the index's model is now, if it has moved.")
@trust_option
@device_option
@json_option
def command(query: str, k: int, conditions: tuple[str, ...], as_json: bool, **settings: Any) -> None:
    """The chunks nearest to QUERY, best first, with document, span, page and score.

    The score is the cosine similarity, or, in an index of late interaction, MaxSim: the sum over the query's tokens.

    The query is encoded by the model that built the index. Filters are on doc_id, title and metadata: file_type=pdf,
    headings=Scope, or on a page: --filter 'page<=3' --filter 'page_end>=3'
    """
    from ctxindex.index import Index

    with Index.open(**settings) as index:
        hits = index.search(query, k, conditions)
    if as_json:
        print_json({"schema": "ctxindex.search/1", "hits": [_as_json(hit) for hit in hits]})
        return
    for number, hit in enumerate(hits, 1):
        _print(number, hit)
    if not hits:
        click.echo("No chunk matches." if conditions else "The index is empty: ctxindex ingest PATH", err=True)


def _as_json(hit: Hit) -> dict[str, Any]:
    values = {name: getattr(hit, name) for name in ("doc_id", "chunk_id", "start", "end", "score", "text")}
    return {**values, "metadata": dict(hit.metadata)}


def _print(number: int, hit: Hit) -> None:
    name = click.style(hit.doc_id, bold=True)
    click.echo(f"{number}. {name}  [{hit.start}:{hit.end}]{_pages(hit)}  score {hit.score:.3f}")
    place = [hit.title] if hit.title else []
    place += [heading for heading in hit.metadata.get("headings", []) if heading != hit.title]
    if place:
        click.echo(f"    {' > '.join(place)}")
    print_passage(hit.text)


def _pages(hit: Hit) -> str:
    first, last = hit.metadata.get("page"), hit.metadata.get("page_end")
    if first is None:
        return ""
    return f"  page {first}" if last in (None, first) else f"  pages {first}-{last}"
