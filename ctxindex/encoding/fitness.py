"""Whether a model fits a method, and how its states are pooled. What would be silently bad is refused with the reason.

Late chunking takes the mean of a chunk's states. A model that was trained to put the meaning of a text into one token
(CLS, the last) gives means that look like vectors and find nothing; --force-mean insists, and is recorded in the spec.
"""

from __future__ import annotations

from pathlib import Path

from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.colbert import ColbertLayout
from ctxindex.errors import ConfigError, ModelError
from ctxindex.spec import Method, PoolingName

_OWN: dict[str, PoolingName] = {"mean": "inclusive", "cls": "cls", "lasttoken": "lasttoken"}
"""Poolings of a whole text that are followed as they are."""

_WORDS = {"cls": "the state of CLS", "lasttoken": "the state of the last token", "max": "the largest of each number"}

_MEANS = ("late", "cde")
"""Methods that take the mean of a chunk's states."""

TRAINED_WINDOW = "model"
"""`max_tokens` of a user who wants what the model was trained with."""

_SMALLEST_WINDOW = 16


def require_fit(checkpoint: Checkpoint, method: Method, force_mean: bool) -> None:
    """Check that the model gives meaningful vectors with the method.

    Raises:
        ModelError: it does not; the message says why, and what to pass to insist where that is possible.
    """
    folder, pooling = checkpoint.folder, checkpoint.pooling
    if checkpoint.colbert is not None:
        _require_late_interaction(folder, checkpoint.colbert, method)
        return
    if checkpoint.published is not None:
        _require_cde(folder, method)
        return
    if method == "late-interaction":
        raise ModelError(
            f"{checkpoint.name} gives one vector a text: --method late-interaction needs a --model with a vector for "
            "every token (a ColBERT of PyLate, Stanford or sentence-transformers), as lightonai/GTE-ModernColBERT-v1"
        )
    if method == "cde" and checkpoint.cde is None:
        raise ModelError(
            f"{checkpoint.name} reads no corpus context: --method cde needs a model with two stages (CDE); use "
            "--method late or independent, or train one of it with ctxindex finetune --method cde"
        )
    if method in _MEANS and checkpoint.facts.causal:
        raise ModelError(
            f"{folder} is a causal {checkpoint.facts.name}: a token sees only what stands before it, so late chunking "
            "would give chunks half of their context: choose a bidirectional model, or --method independent"
        )
    if force_mean:
        return
    if pooling is None:
        raise ModelError(
            f"{folder} is a bare transformers folder: without modules.json nothing says how its token states become a "
            "vector. Pass --force-mean to take their mean, if the model was trained that way"
        )
    if method in _MEANS and pooling.mode != "mean":
        raise ModelError(
            f"{folder} pools by {_WORDS.get(pooling.mode, pooling.mode)}, so the mean of a chunk's token states, which "
            "late chunking takes, was never trained and finds little: choose a mean-pooled model, use --method "
            "independent (its own pooling), or pass --force-mean to insist"
        )
    if pooling.mode not in _OWN or (pooling.mode != "mean" and not pooling.include_prompt):
        what = pooling.mode if pooling.include_prompt else f"{pooling.mode} without the prompt"
        raise ModelError(
            f"{folder} pools by {what}, which is not supported (mean, cls and lasttoken are): "
            "choose another model, or pass --force-mean to take the mean instead"
        )


def require_base(checkpoint: Checkpoint) -> None:
    """Check that a model can become the second stage of a CDE model, whose vectors are means of token states.

    Raises:
        ModelError: it cannot; the message says why.
    """
    pooling = checkpoint.pooling
    if checkpoint.colbert is None and checkpoint.published is None and (pooling is None or pooling.mode != "mean"):
        how = "says nothing of pooling (it has no modules.json)"
        if pooling is not None:
            how = f"pools by {_WORDS.get(pooling.mode, pooling.mode)}"
        raise ModelError(
            f"{checkpoint.folder} {how}, and the vectors of a CDE model are means of token states: choose a "
            "mean-pooled model as its base"
        )
    require_fit(checkpoint, "late", force_mean=False)


def _require_cde(folder: Path, method: Method) -> None:
    if method != "cde":
        raise ModelError(
            f"{folder} is a published CDE model, which reads every text behind a context of its corpus: --method "
            f"{method} cannot use it; leave --method out, or choose another model"
        )


def _require_late_interaction(folder: Path, layout: ColbertLayout, method: Method) -> None:
    if method != "late-interaction":
        raise ModelError(
            f"{folder} is a late-interaction model (ColBERT), with a vector for every token: --method {method} needs a "
            "model that gives one vector a text; leave --method out, or choose another model"
        )
    if not layout.normalize:
        raise ModelError(f"{folder} gives token vectors of any length, and stores can only compare unit vectors")


def text_pooling(checkpoint: Checkpoint, force_mean: bool) -> PoolingName:
    """How a whole text becomes a vector: queries with any method, and chunks with `independent`."""
    pooling = checkpoint.pooling
    if force_mean or pooling is None:
        return "inclusive"
    return _OWN[pooling.mode] if pooling.include_prompt else "no-prompt"


def counts_as_forced(checkpoint: Checkpoint, asked: bool) -> bool:
    """Whether --force-mean changes anything; a model that pools by mean needs no force."""
    return asked and (checkpoint.pooling is None or checkpoint.pooling.mode != "mean")


def choose_window(checkpoint: Checkpoint, asked: int | str | None) -> int:
    """Tokens of a window: the backbone's positions, the trained length with "model", or a smaller number.

    Raises:
        ConfigError: more than the model can read, or too few to hold anything.
    """
    if asked is None:
        return checkpoint.max_tokens
    if asked == TRAINED_WINDOW:
        return checkpoint.trained_tokens or checkpoint.max_tokens
    if not isinstance(asked, int) or not _SMALLEST_WINDOW <= asked <= checkpoint.max_tokens:
        raise ConfigError(
            f"--max-tokens {asked}: windows of {checkpoint.name} have {_SMALLEST_WINDOW} to {checkpoint.max_tokens}"
        )
    return asked


def require_rotary(checkpoint: Checkpoint) -> None:
    """Check that the model can read texts of any length in one pass.

    Raises:
        ConfigError: its positions end.
    """
    facts = checkpoint.facts
    if facts.remote:
        why = "nothing is known of its positions, which code of its own makes"
    else:
        why = f"{facts.name} has learnt a state for each of its {facts.max_tokens} positions, and has none beyond"
    if not facts.rotary:
        raise ConfigError(
            f"--windows full reads a document in one pass of any length, which {checkpoint.name} cannot: {why}. "
            "Use --windows window, or a model with rotary positions (ModernBERT, NomicBERT, EuroBERT, Qwen3)"
        )


def choose_dim(checkpoint: Checkpoint, asked: int | None) -> int:
    """Numbers of a vector: all, or the first `asked`.

    Raises:
        ConfigError: more than the model gives, or none.
    """
    if asked is None:
        return checkpoint.dim
    if not 1 <= asked <= checkpoint.dim:
        raise ConfigError(f"--dims {asked}: vectors of {checkpoint.name} have {checkpoint.dim} numbers")
    return asked
