"""Writing a report to a folder: the page and the CSVs beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ctxindex.errors import MissingDependencyError
from ctxindex.evaluation.report.csvs import FILES, write_csvs
from ctxindex.evaluation.results import Comparison, Run


def write_report(
    folder: Path,
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    *,
    command: str,
    settings: Mapping[str, Any],
) -> list[Path]:
    """Write `index.html`, and the numbers behind it as CSV files, into `folder`; what is there is overwritten.

    `command` is what was run, and `settings` what else to say of it (the date, for one), as it is to be shown.

    Raises:
        MissingDependencyError: a package of the extra `eval` is not installed; nothing has been written.
    """
    require_report()
    from ctxindex.evaluation.report.page import render

    page = render(runs, comparisons, command=command, settings=settings, files=FILES)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.html"
    index.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")
    return [index, *write_csvs(folder, runs, comparisons)]


def require_report() -> None:
    """Raises MissingDependencyError where a package that a report needs is not installed."""
    for package in ("jinja2", "matplotlib"):
        try:
            import_module(package)
        except ImportError:
            raise MissingDependencyError(package, extra="eval", purpose="an evaluation report") from None
