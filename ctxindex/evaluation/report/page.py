"""The report as one HTML file: everything is in it, nothing is fetched, and no text of a document is taken as markup.

What is shown is gathered here; how it looks is in `templates`. Needs Jinja2 and matplotlib: only `write_report` imports
this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup

from ctxindex.evaluation.report import words
from ctxindex.evaluation.report.failures import WORST, failing, failure
from ctxindex.evaluation.report.grouping import by_dataset, labels, plain, point_of
from ctxindex.evaluation.report.origin import settings_rows, versions
from ctxindex.evaluation.report.sections import Section, section
from ctxindex.evaluation.results import Comparison, Run

_BYTES: Final = 1_900_000
_FAILING_BYTES_LEAST: Final = 300_000


def render(
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    *,
    command: str,
    settings: Mapping[str, Any],
    files: Sequence[str],
) -> str:
    """The page. `files` are the names of the files beside it."""
    environment = _environment()
    page = environment.from_string(_template("page.html"))
    sections = [
        section(name, number, here, [one for one in comparisons if one.dataset == name])
        for number, (name, here) in enumerate(by_dataset(runs).items(), 1)
    ]
    values = {
        "style": Markup(_template("page.css")),
        "grid": _grid(environment),
        "command": command,
        "settings": settings_rows(settings),
        "versions": versions(),
        "files": files,
    }
    bare = len(_encoded(page.render(sections=sections, **values)))
    _add_failing(sections, runs, environment, max(_FAILING_BYTES_LEAST, _BYTES - bare))
    return page.render(sections=sections, **values)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    # Markup is ours, and clean.
    return words.clean(value) if type(value) is str else value


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _grid(environment: jinja2.Environment) -> Callable[..., Markup]:
    template = environment.from_string(_template("grid.html"))

    def grid(rows: Sequence[Sequence[str]], left: int = 1) -> Markup:
        return Markup(template.render(rows=[[cell.strip() for cell in row] for row in rows], left=left))

    return grid


def _add_failing(
    sections: Sequence[Section], runs: Sequence[Run], environment: jinja2.Environment, budget: int
) -> None:
    """Give each section the worst queries of its runs: as many of each run as all together have room for."""
    template = environment.from_string(_template("failure.html"))
    groups: list[tuple[Section, str, list[int], list[Markup]]] = []
    for one, here in zip(sections, by_dataset(runs).values(), strict=True):
        shown = plain(here) or here
        for label, run in zip(labels(shown), shown, strict=True):
            numbers = failing(run)
            written = [Markup(template.render(one=failure(run, query))) for query in numbers[:WORST]]
            groups.append((one, label + point_of(run), numbers, written))
    sizes = [[len(_encoded(text)) for text in written] for *_, written in groups]
    most = next((n for n in range(WORST, 1, -1) if sum(sum(of[:n]) for of in sizes) <= budget), 1)
    for one, label, numbers, written in groups:
        one.add_failing(label, written[:most], len(numbers))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="backslashreplace")
