"""How well an index finds: what it is measured with, and what it is measured against."""

from __future__ import annotations
