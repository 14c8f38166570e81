"""Training: what a model learns contextual retrieval from, and how. Importing it loads no torch."""

from __future__ import annotations
