"""matplotlib's figures as SVG elements that stand in an HTML page: small, in the page's own ink, with ids of their own.

Needs matplotlib; nothing here or in `plots` touches pyplot. Only `write_report` imports them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ctxindex.evaluation.report import words

INK: Final = "#010203"
"""Drawn with this, a thing has the colour of the page's text, by day and by night."""

_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: small, and read by those who do not see
    "svg.hashsalt": "ctxindex",  # the same figure gives the same bytes
    "text.parse_math": False,  # a name may hold dollars
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
_REFERENCE: Final = re.compile(r"#([\w-]+)(?=\)?$)")
_LONG: Final = re.compile(r"-?\d+\.\d{3,}")
_FALLBACKS: Final = re.compile(r"(?<='DejaVu Sans', )'.*'(?=, sans-serif)")


@contextmanager
def drawing() -> Iterator[None]:
    """Settings of matplotlib for a while: its defaults, whatever a machine's file says, and the page's style."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # A glyph that matplotlib's font lacks is measured as a box, and drawn in the reader's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def element(figure: Figure, name: str, label: str) -> str:
    """The figure as an `<svg>`. `name` begins its ids and differs from figure to figure; `label` says what is drawn."""
    written = io.BytesIO()
    FigureCanvasSVG(figure)
    figure.savefig(written, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    referred = {
        found[1] for part in root.iter() for value in part.attrib.values() if (found := _REFERENCE.search(value))
    }
    for part in root.iter():
        _rewrite(part, name, referred)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": words.clean(label)}
    return ElementTree.tostring(root, encoding="unicode")


def _rewrite(part: ElementTree.Element, name: str, referred: set[str]) -> None:
    """In HTML the names of SVG need no name space; ids are one page's, so each figure has a prefix."""
    part.tag = _local(part.tag)
    attributes = {_local(key): value for key, value in part.attrib.items()}
    if attributes.get("id") not in referred:
        attributes.pop("id", None)
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    for key, value in attributes.items():
        if key in ("href", "clip-path"):
            value = _REFERENCE.sub(rf"#{name}-\1", value)
        attributes[key] = _LONG.sub(_shorter, _FALLBACKS.sub("Verdana", value.replace(INK, "currentColor")))
    if "d" in attributes:
        attributes["d"] = " ".join(attributes["d"].split())
    part.attrib = attributes
    if part.tag != "text":
        part.text = None
    part.tail = None


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
