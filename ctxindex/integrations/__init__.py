"""ctxindex inside other frameworks. Each module imports its framework, so nothing is imported from here."""

from __future__ import annotations
