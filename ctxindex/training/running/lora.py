"""Low-rank adapters: a layer's weight W stays as it is, and W + 2 B A is what it computes with.

A is (rank, in) and B is (out, rank), zero before training, so that the model begins as it was. What is trained is a
hundredth of the weights: optimizer states shrink as much, and the model cannot move far from where it was. When it is
done the adapters are added into the weights (`merged_state`), and nothing is left that a reader would have to know of.
Source: "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, section 4.1.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import torch

from ctxindex.errors import MissingDependencyError
from ctxindex.training.model import MEMORY

if TYPE_CHECKING:
    from ctxindex.training.model import ContextualModel

_ADAPTER = "default"
_SCALE = 2
"""alpha / rank: what the product of the two is multiplied by."""

_POOLER = "pooler"
"""A module that token states do not pass through."""


def add_adapters(model: ContextualModel, rank: int) -> None:
    """Give every linear layer of the transformer an adapter of that rank, and train these in place of its weights.

    Modules behind the pooling have few weights, and are trained themselves. What A begins with comes from torch's
    random numbers.

    Raises:
        MissingDependencyError: the extra `lora` is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingDependencyError("peft", extra="lora", purpose="--lora")
    from peft import LoraConfig, inject_adapter_in_model

    linear = [
        name
        for name, module in model.transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and _POOLER not in name.split(".")
    ]
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=_SCALE * rank, target_modules=linear), model.transformer, _ADAPTER
    )


def merged_state(model: ContextualModel) -> dict[str, torch.Tensor]:
    """The weights of the model by the names that they have without adapters, each with its adapter added.

    Of a model without adapters, its weights; what it remembers of earlier steps is none. They are copies: the model
    goes on as it is.
    """
    merged = {
        name.replace(".base_layer.", "."): weight.detach().clone()
        for name, weight in model.state_dict().items()
        if ".lora_" not in name and not name.startswith(f"{MEMORY}.")
    }
    for name, module in model.named_modules():
        if hasattr(module, "base_layer"):
            adapted: Any = module
            merged[f"{name}.weight"] += adapted.get_delta_weight(_ADAPTER).detach()
    return merged
