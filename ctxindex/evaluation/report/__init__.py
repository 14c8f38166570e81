"""How results are shown: tables for a terminal, JSON for programs, and a report of one HTML file with CSVs beside it.

Importing it is cheap: matplotlib and Jinja2, of the extra `eval`, come in when a report is written.
"""

from __future__ import annotations

from ctxindex.evaluation.report.machine import as_json
from ctxindex.evaluation.report.text import comparison_rows, summary_rows, sweep_rows, tables
from ctxindex.evaluation.report.write import require_report, write_report

__all__ = ["as_json", "comparison_rows", "require_report", "summary_rows", "sweep_rows", "tables", "write_report"]
