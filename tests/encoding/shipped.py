"""A stand-in for the model that comes with ctxindex: MiniLM with some matrices changed, as its difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ctxindex.encoding.difference import CARD, DifferenceFacts, write_difference
from ctxindex.encoding.known_models import MINILM, find_folder
from ctxindex.encoding.packaged import DIFFERENCE
from ctxindex.encoding.trained import TrainedSettings, write_settings

CHANGED = (
    "encoder.layer.5.output.dense.weight",
    "encoder.layer.5.attention.self.value.weight",
    "encoder.layer.5.output.dense.bias",
)


def save_tuned(folder: Path) -> Path:
    """MiniLM after a training that changed a few tensors, and that saved no buffers."""
    folder.mkdir(parents=True)
    weights = load_file(find_folder(MINILM) / "model.safetensors")
    del weights["embeddings.position_ids"]
    generator = np.random.default_rng(3)
    for name in CHANGED:
        change = generator.normal(0, 1e-2, weights[name].shape).astype(np.float32)
        change[::7] = 0
        weights[name] = weights[name] + change
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def ship(folder: Path, tuned: Path, settings: TrainedSettings) -> DifferenceFacts:
    """Put into `folder` what the package has of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(folder, settings)
    (folder / CARD).write_text("# A stand-in\n", encoding="utf-8")
    return write_difference(find_folder(MINILM), tuned, folder / DIFFERENCE)
