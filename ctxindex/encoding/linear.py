"""Linear layers for a CPU: weights laid out once as oneDNN wants them, and GELU done where the product is written.

torch multiplies float32 through MKL, which on some processors leaves half of the vector units idle, and hands oneDNN
the weights of a bfloat16 layer as they are, to be laid out anew in each call. The operator behind torch's own compiled
models takes weights laid out beforehand, and applies an activation while the result is still in registers. It is no
public one: where it is missing, or does not give the result of the plain layer, models stay as they are.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("ctxindex")

_TOKENS = 4096
"""The number of tokens that weights are laid out for; any other works."""

_ACTIVATED = {"dense": "intermediate_act_fn", "lin1": "activation"}
"""A linear layer -> the activation beside it, in the feed-forward modules that apply one to the other and no more."""

_FORMULAS = {"GELUActivation": "none", "GELU": "none", "GELUTanh": "tanh", "NewGELUActivation": "tanh"}
"""The class of an activation -> oneDNN's name of its formula."""


def speed_up(model: torch.nn.Module) -> int:
    """Replace the linear layers of `model` by fast ones, in place; how many were replaced.

    None are where the operator is missing, or is off by more than rounding. The model is for inference only then.
    """
    import torch

    found = [
        (parent, name)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if type(layer) is torch.nn.Linear
    ]
    if not found or not _works(getattr(*found[0])):
        _log.debug("linear layers stay as they are: the fast operator is missing or inexact here")
        return 0
    for parent, name in found:  # one by one, so that no more than one layer is in memory twice
        setattr(parent, name, _fast(getattr(parent, name), _take_activation(parent, name)))
    return len(found)


def _take_activation(parent: torch.nn.Module, name: str) -> str | None:
    """What is applied to layer `name`, as oneDNN calls it; the module itself no longer applies it then."""
    import torch

    beside = _ACTIVATED.get(name, "")
    activation = getattr(parent, beside, None)
    formula = _FORMULAS.get(type(activation).__name__)
    if formula is not None and getattr(activation, "approximate", formula) == formula:
        setattr(parent, beside, torch.nn.Identity())
        return formula
    return None


def _fast(layer: torch.nn.Linear, gelu: str | None) -> torch.nn.Module:
    import torch

    operators: Any = torch.ops.mkldnn  # its members appear when they are asked for
    product = operators._linear_pointwise
    weight = operators._reorder_linear_weight(layer.weight.detach(), _TOKENS)
    bias = None if layer.bias is None else layer.bias.detach()

    class FastLinear(torch.nn.Module):
        """(…, in features) -> (…, out features)."""

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = product(values, weight, bias, "gelu" if gelu else "none", [], gelu or "")
            return result

    return FastLinear()


def _works(layer: torch.nn.Linear) -> bool:
    """Whether the operator is there, and gives what the plain layer and the plain activation give."""
    import torch

    values = torch.linspace(-1, 1, 3 * layer.in_features, device=layer.weight.device, dtype=layer.weight.dtype)
    values = values.view(1, 3, layer.in_features)
    try:
        with torch.inference_mode():
            expected = torch.nn.functional.gelu(layer(values).float())
            found = _fast(layer, "none")(values).float()
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    # Rounding of a sum in another order grows with the root of its length.
    allowed = float(expected.abs().max()) * (8 + layer.in_features**0.5) * torch.finfo(layer.weight.dtype).eps
    return bool((found - expected).abs().max() <= allowed)
