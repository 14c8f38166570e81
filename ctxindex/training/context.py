"""How a model is read in training where the user says nothing: in context, as it should be read afterwards.

The head of a document begins every window, its title every row, and the vector of a chunk in its window is mixed with
that of the chunk alone: windows of a small model hold little of a long document, and what a chunk says by itself should
not be lost. A late-interaction model is mixed only where the user says how much. A model that says of itself how it is
to be read is read like that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.fitness import choose_window
from ctxindex.errors import ConfigError
from ctxindex.training.options import ANCHOR, BLEND, ISOLATED

if TYPE_CHECKING:
    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.encoding.options import EncoderOptions
    from ctxindex.spec import EncoderSpec, Method
    from ctxindex.training.options import ObjectiveOptions


def in_context(options: EncoderOptions, checkpoint: Checkpoint) -> EncoderOptions:
    """The options with these defaults, as far as they go with what is chosen and with the model.

    Raises:
        ConfigError: a method that reads no context is chosen, or the window is out of its range.
    """
    method = options.method or _method_of(checkpoint)
    if method == "independent":
        raise ConfigError("--method independent reads no context to train for: choose late, late-interaction or cde")
    options = replace(options, method=method)
    if options.windows == "chunk":
        if method == "late-interaction":
            raise ConfigError("--windows chunk reads no context to train for: leave it out")
        return options
    if checkpoint.trained is not None and checkpoint.trained.method == method:
        return options
    defaults = _defaults(
        options, choose_window(checkpoint, options.max_tokens), 0.0 if method == "late-interaction" else BLEND
    )
    return replace(options, **{name: value for name, value in defaults.items() if getattr(options, name) is None})


def _method_of(checkpoint: Checkpoint) -> Method:
    if checkpoint.cde is not None:
        return "cde"
    return "late" if checkpoint.colbert is None else "late-interaction"


def require_memory(spec: EncoderSpec, objective: ObjectiveOptions, devices: int) -> None:
    """Check that chunks of earlier steps can be remembered, and are of use, where that is asked for.

    Raises:
        ConfigError: they cannot, or are not; the message says why.
    """
    if not objective.cross_batch_memory:
        return
    if spec.multivector:
        why = "keeps one vector a chunk, and late interaction has many"
    elif devices > 1:
        why = "is of one device: on several, --gather-negatives brings negatives of the others"
    elif objective.insent.lambda_seq == 1:
        why = "tells documents apart, and --lambda 1 only chunks of one document"
    else:
        return
    raise ConfigError(f"--cross-batch-memory {why}: leave it out")


def _defaults(options: EncoderOptions, window: int, blend: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    plain = options.pooling in (None, "strict")
    if options.windows in (None, "window") and options.pooling != "authors-compat":
        found["anchor"] = min(ANCHOR, window // 4)  # more is refused
    if options.windows != "token-window" and plain:
        found["anchor_title"] = True
    if options.pooling != "authors-compat":
        found["blend"] = blend
        if plain and (blend if options.blend is None else options.blend):
            found["isolated"] = ISOLATED
    return found
