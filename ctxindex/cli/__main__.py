"""`python -m ctxindex.cli`."""

from __future__ import annotations

from ctxindex.cli import main

main()
