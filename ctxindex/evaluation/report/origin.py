"""Where results come from, as a report says it: the settings of the run, and the versions that it ran with."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ctxindex import __version__
from ctxindex.evaluation.report.machine import plain_json

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "bm25s", "pytrec-eval-terrier")


def settings_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values as text."""
    return [(str(name), _written(value)) for name, value in settings.items()]


def versions() -> list[tuple[str, str]]:
    """The versions of ctxindex, Python, and what decides the numbers."""
    return [
        ("ctxindex", __version__),
        ("python", platform.python_version()),
        *((name, _version(name)) for name in _PACKAGES),
    ]


def _written(value: Any) -> str:
    plain = plain_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
