"""The tensors of a published CDE checkpoint: where each belongs in the stock classes of transformers.

Both stages lie in one file under the names of the authors' classes. ModernBERT's tensors are named as the stock class
names them; NomicBERT's carry the names of the time before it had one, and its query, key and value are one matrix.
Every tensor of the file must find its place and every place its tensor, or the file is not what it seems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.cde.published.layout import FIRST, NULL, SECOND, SOFT, PublishedLayout, StageName
from ctxindex.encoding.model_files import tensor_names, weight_files
from ctxindex.errors import ModelError

if TYPE_CHECKING:
    import torch

    from ctxindex.types import FloatArray

CONTEXT_LAYERS = "first_stage_model.mlp"
OUTPUT_LAYERS = "second_stage_model.output_projection"

_NOMIC_NAMES = (
    (r"^encoder\.layers\.", "layers."),
    (r"^emb_ln\.", "embeddings.LayerNorm."),
    (r"\.attn\.out_proj\.", ".self_attn.o_proj."),
    (r"\.mlp\.fc11\.", ".mlp.up_proj."),
    (r"\.mlp\.fc12\.", ".mlp.gate_proj."),
    (r"\.mlp\.fc2\.", ".mlp.down_proj."),
    (r"\.norm1\.", ".post_attention_layernorm."),
    (r"\.norm2\.", ".post_mlp_layernorm."),
)
_JOINED = ".attn.Wqkv."
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""What old files may hold and models make themselves."""

_UNUSED = {"second_stage_model.input_ln.weight", "second_stage_model.input_ln.bias"}
"""Of a norm that the authors' class has and their forward pass never goes through; v1 may have been saved with it."""

_SHOWN = 5
"""Names in an error message, of each kind."""


class PublishedWeights:
    """The weights in the folder of a layout. Nothing is read before it is asked for, and all names are checked first.

    Every method raises ModelError where a tensor is missing, left over, or of another shape than its place.
    """

    def __init__(self, layout: PublishedLayout) -> None:
        self._layout = layout
        self._checked = False

    def transformer(self, stage: StageName, dtype: torch.dtype) -> Any:
        """The transformer of a stage, for inference, on the CPU."""
        from transformers.initialization import no_init_weights

        self._check()
        with no_init_weights():
            model = _stock(self._layout, stage)
        names = [name for name in self._shapes() if name.startswith(stage)]
        held = {
            place: part.to(dtype)
            for name, tensor in self._tensors(names)
            for place, part in _placed(self._layout.kind, name.removeprefix(stage), tensor)
        }
        # Assigned, so that what a model makes itself (rotary frequencies) stays float32 in every precision.
        model.load_state_dict(held, assign=True)
        return model.eval()

    def two_layers(
        self, name: str, activation: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """The two linear layers called `name` with an activation in between, on the CPU in float32."""
        from torch.nn import functional

        self._check()
        names = [f"{name}.{number}.{part}" for number in (0, 2) for part in ("weight", "bias")]
        held = {key: tensor.float() for key, tensor in self._tensors(names)}
        first, first_bias, second, second_bias = (held[key] for key in names)

        def apply(values: torch.Tensor) -> torch.Tensor:
            return functional.linear(activation(functional.linear(values, first, first_bias)), second, second_bias)

        return apply

    def null_vector(self) -> FloatArray:
        """The vector that stands for no context, (hidden,) float32, where `layout.null`."""
        self._check()
        vector: FloatArray = dict(self._tensors((NULL,)))[NULL].float().numpy()
        return vector

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors of the checkpoint that are weights."""
        found = {
            name: shape for file in weight_files(self._layout.folder) for name, shape in tensor_names(file).items()
        }
        return {name: shape for name, shape in found.items() if not name.endswith(_BUFFERS) and name not in _UNUSED}

    def _tensors(self, names: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        from safetensors import safe_open

        for file in weight_files(self._layout.folder):
            with safe_open(file, framework="pt") as tensors:
                for name in set(names).intersection(tensors.keys()):
                    yield name, tensors.get_tensor(name)

    def _check(self) -> None:
        """Refuse a file in which a tensor is missing, left over, or of another shape than its place."""
        if self._checked:
            return
        wanted = wanted_shapes(self._layout)
        found: dict[str, tuple[int, ...]] = {}
        called: dict[str, str] = {}
        for name, shape in self._shapes().items():
            stage = next((stage for stage in (FIRST, SECOND) if name.startswith(stage)), "")
            for place, size in _placed_shape(self._layout.kind if stage else "", name.removeprefix(stage), shape):
                found[stage + place] = size
                called[stage + place] = name
        wrong = {
            "missing": sorted(wanted.keys() - found.keys()),
            "unknown": sorted({called[name] for name in found.keys() - wanted.keys()}),
            "of another size": sorted(
                {called[name] for name in wanted.keys() & found.keys() if wanted[name] != found[name]}
            ),
        }
        if any(wrong.values()):
            said = "; ".join(f"{what}: {_listed(names)}" for what, names in wrong.items() if names)
            raise ModelError(
                f"the weights in {self._layout.folder} are not those of a CDE model on {self._layout.facts.name} as "
                f"its config.json describes it: {said}"
            )
        self._checked = True


def wanted_shapes(layout: PublishedLayout) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a checkpoint; those of the transformers as the stock classes call them."""
    return {**_around(layout), **_inside(layout, FIRST), **_inside(layout, SECOND)}


def _stock(layout: PublishedLayout, stage: StageName) -> Any:
    """A transformer of the stock class for the configuration of a stage, with whatever weights."""
    from transformers import ModernBertConfig, ModernBertModel, NomicBertConfig, NomicBertModel

    values: dict[str, Any] = layout.first if stage == FIRST else layout.second
    if layout.kind == "modernbert":
        return ModernBertModel(ModernBertConfig(**values))
    factory: Any = NomicBertModel
    return factory(NomicBertConfig(**values), add_pooling_layer=False)


def _inside(layout: PublishedLayout, stage: StageName) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all tensors of a stage's transformer, made without memory."""
    import torch

    with torch.device("meta"):
        held = _stock(layout, stage).state_dict()
    return {stage + name: tuple(tensor.shape) for name, tensor in held.items()}


def _around(layout: PublishedLayout) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors around both transformers."""
    hidden = layout.hidden
    shapes: dict[str, tuple[int, ...]] = {NULL: (hidden,)} if layout.null else {}
    wide = {SOFT: max(1, layout.soft_tokens) * hidden}
    for name in (CONTEXT_LAYERS, SOFT, OUTPUT_LAYERS):
        for number, size in ((0, hidden), (2, wide.get(name, hidden))):
            shapes |= {f"{name}.{number}.weight": (size, hidden), f"{name}.{number}.bias": (size,)}
    return shapes


def _placed(kind: str, name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Where the tensor called `name` goes in the stock class: its names there, and the part of the tensor for each."""
    if kind != "nomic_bert":
        return [(name, tensor)]
    for pattern, own in _NOMIC_NAMES:
        name = re.sub(pattern, own, name)
    parts = tensor.chunk(3, dim=0)
    if _JOINED not in name or len(parts) != 3:
        return [(name, tensor)]
    return [
        (name.replace(_JOINED, f".self_attn.{letter}_proj."), part) for letter, part in zip("qkv", parts, strict=True)
    ]


def _placed_shape(kind: str, name: str, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """As `_placed`, for shapes alone."""
    import torch

    return [(place, tuple(part.shape)) for place, part in _placed(kind, name, torch.empty(shape, device="meta"))]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
