"""What may be chosen about contextual training, and what the flags of `finetune --method cde` make of it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from ctxindex.cli.contextual_options import contextual_of, require_no_contextual
from ctxindex.errors import ConfigError
from ctxindex.training.contextual.options import CONTEXT_BIAS, ContextualOptions


def given(**flags: Any) -> dict[str, Any]:
    return defaultdict(lambda: None, flags)


def test_the_bias_begins_where_it_is_told() -> None:
    assert contextual_of(given(), shared=None) == ContextualOptions()
    assert ContextualOptions().context_bias == CONTEXT_BIAS == 0.0
    chosen = contextual_of(given(context_bias=-2.0), shared=None)
    assert (chosen.context_bias_init, chosen.context_bias) == (-2.0, -2.0)
    assert contextual_of(given(context_bias=0.0), shared=None).context_bias_init == 0.0
    with pytest.raises(ConfigError, match="--context-bias goes with --method cde"):
        require_no_contextual(given(context_bias=0.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"context_bias_init": float("nan")}, "--context-bias nan must be a number"),
        ({"bias_rate": 0.0}, "bias_rate 0.0 must be a number above 0"),
        ({"new_rate": -1.0}, "new_rate -1.0 must be a number above 0"),
    ],
)
def test_what_is_no_number_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContextualOptions(**wrong)
