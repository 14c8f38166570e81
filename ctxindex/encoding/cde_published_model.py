"""The two transformers of a published CDE checkpoint, in the stock classes of transformers; torch comes in here.

Both stages lie in one file under the names of the authors' classes. ModernBERT's tensors are named as the stock class
names them; NomicBERT's carry the names of the time before it had one, and its query, key and value are one matrix.
Every tensor of the file must find its place and every place its tensor, or the file is not what it seems.

    first stage    text -> states -> mean -> Linear, GELU, Linear -> one row of the context matrix, of any length
    second stage   [context matrix | soft tokens | text] -> states of the text -> (mean) -> Linear, ReLU, Linear

The context matrix and the soft tokens are put in where the text's word embeddings are, so the transformer's first
LayerNorm goes over all of them. Words come from the authors' whole embedding module instead, which in ModernBERT ends
with that norm and in NomicBERT has added the vector of the token type: both therefore happen to them twice.
Attention goes both ways over all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.encoding.backbone import out_of_memory_told
from ctxindex.encoding.cde_published_layout import FIRST, NULL, SECOND, SOFT, PublishedLayout, StageName
from ctxindex.encoding.linear import speed_up
from ctxindex.encoding.model_files import tensor_names, weight_files
from ctxindex.encoding.runtime import keep_freed_memory, resolve_device, resolve_dtype, use_threads
from ctxindex.errors import ModelError

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.rows import Row
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.metering import Meter
    from ctxindex.types import FloatArray

_CONTEXT_LAYERS = "first_stage_model.mlp"
_OUTPUT_LAYERS = "second_stage_model.output_projection"

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

_STEP = 16
"""Padded texts are as long as a multiple of it, for the sake of kernels that keep something for every shape."""

_SHOWN = 5


class PublishedModel:
    """The weights of a published checkpoint, each stage brought into memory when it is first needed.

    Args:
        layout: what the folder says.
        dtype: name of the type that the forward passes run in; what follows a mean is float32.
        device: where they run.
        threads: of the CPU; None takes those this process may use.
        pad_id: id of the token that padding is made of.
        meter: measures loading and forward passes.
    """

    def __init__(
        self, layout: PublishedLayout, *, dtype: str, device: str, threads: int | None, pad_id: int, meter: Meter
    ) -> None:
        self.layout = layout
        self.pad_id = pad_id
        self.meter = meter
        self._dtype_name, self._device_name, self._threads = dtype, device, threads
        self._second: Any = None
        self._output: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._checked = False

    @property
    def device(self) -> torch.device:
        """Where forward passes run.

        Raises:
            ConfigError: this machine has no such device.
        """
        return resolve_device(self._device_name)

    def first(self) -> FirstStage:
        """The first stage; it is needed once for each corpus, and kept by the caller alone.

        Raises:
            ModelError: the weights are damaged, or not those of this layout.
        """
        return FirstStage(self, self._transformer(FIRST))

    def second(self, context: FloatArray) -> SecondStage:
        """The second stage behind the context matrix (context size, hidden) float32.

        Raises:
            ModelError: the weights are damaged, or not those of this layout.
        """
        if self._second is None:
            self._second = self._transformer(SECOND)
        return SecondStage(self, self._second, context)

    def context_vectors(self, means: FloatArray) -> FloatArray:
        """The rows of the context matrix for the means of first-stage states; both (rows, hidden) float32."""
        import torch

        return self._apply(self._layers(_CONTEXT_LAYERS, torch.nn.functional.gelu), means)

    def output_vectors(self, means: FloatArray) -> FloatArray:
        """The model's vectors, of any length, for means of second-stage states; both (rows, hidden) float32."""
        import torch

        if self._output is None:
            self._output = self._layers(_OUTPUT_LAYERS, torch.nn.functional.relu)
        made = self._apply(self._output, means)
        return made + means if self.layout.switches.residual else made

    def soft_tokens(self) -> torch.Tensor:
        """The constant vectors between context and text, (soft tokens, hidden) float32."""
        import torch

        with torch.inference_mode():
            made = self._layers(SOFT, torch.nn.functional.relu)(torch.ones(self.layout.hidden))
        return made.view(self.layout.soft_tokens, self.layout.hidden)

    def null_vector(self) -> FloatArray:
        """The vector that stands for no context, (hidden,) float32, where `layout.null`."""
        self._check()
        vector: FloatArray = dict(self._tensors((NULL,)))[NULL].float().numpy()
        return vector

    def _apply(self, layers: Callable[[torch.Tensor], torch.Tensor], means: FloatArray) -> FloatArray:
        import torch

        with torch.inference_mode():
            made: FloatArray = layers(torch.from_numpy(np.ascontiguousarray(means))).numpy()
        return made

    def _layers(self, name: str, activation: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        """Two linear layers of the file with an activation in between, on the CPU in float32."""
        from torch.nn import functional

        self._check()
        names = [f"{name}.{number}.{part}" for number in (0, 2) for part in ("weight", "bias")]
        held = {key: tensor.float() for key, tensor in self._tensors(names)}
        first, first_bias, second, second_bias = (held[key] for key in names)

        def apply(values: torch.Tensor) -> torch.Tensor:
            return functional.linear(activation(functional.linear(values, first, first_bias)), second, second_bias)

        return apply

    def _transformer(self, stage: StageName) -> Any:
        """The transformer of a stage, with its weights, for inference."""
        from transformers.initialization import no_init_weights

        with self.meter.time("model"):
            self._check()
            if self.device.type == "cpu":
                use_threads(self._threads)
                keep_freed_memory()
            with no_init_weights():
                model = _stock(self.layout, stage)
            dtype = resolve_dtype(self._dtype_name)
            names = [name for name in self._shapes() if name.startswith(stage)]
            held = {
                place: part.to(dtype)
                for name, tensor in self._tensors(names)
                for place, part in _placed(self.layout.kind, name.removeprefix(stage), tensor)
            }
            # Assigned, so that what a model makes itself (rotary frequencies) stays float32 in every precision.
            model.load_state_dict(held, assign=True)
            model = model.eval().to(self.device)
            if self.device.type == "cpu":
                speed_up(model)
        return model

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors of the checkpoint that are weights."""
        found = {name: shape for file in weight_files(self.layout.folder) for name, shape in tensor_names(file).items()}
        return {name: shape for name, shape in found.items() if not name.endswith(_BUFFERS)}

    def _tensors(self, names: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        from safetensors import safe_open

        for file in weight_files(self.layout.folder):
            with safe_open(file, framework="pt") as tensors:
                for name in set(names).intersection(tensors.keys()):
                    yield name, tensors.get_tensor(name)

    def _check(self) -> None:
        """Refuse a file in which a tensor is missing, left over, or of another shape than its place."""
        if self._checked:
            return
        wanted = {**_around(self.layout), **_wanted(self.layout, FIRST), **_wanted(self.layout, SECOND)}
        found: dict[str, tuple[int, ...]] = {}
        called: dict[str, str] = {}
        for name, shape in self._shapes().items():
            stage = next((stage for stage in (FIRST, SECOND) if name.startswith(stage)), "")
            for place, size in _placed_shape(self.layout.kind if stage else "", name.removeprefix(stage), shape):
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
                f"the weights in {self.layout.folder} are not those of a CDE model on {self.layout.facts.name} as its "
                f"config.json describes it: {said}"
            )
        self._checked = True


class _Stage:
    """A transformer and how rows of ids go through it."""

    def __init__(self, model: PublishedModel, transformer: Any) -> None:
        self._model = model
        self._transformer = transformer
        self._device = model.device

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        """See `ctxindex.encoding.backbone.Backbone.place_sums`."""
        import torch

        with torch.inference_mode(), out_of_memory_told(self._device), self._model.meter.time("forward"):
            states = self._states(*self._padded([row.ids for row in rows]))
            sums = [
                states[number, place.start : place.end].float().sum(dim=0)
                for number, row in enumerate(rows)
                for place in row.places
            ]
            values: FloatArray = torch.stack(sums).cpu().numpy()
        return values

    def _states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """States (rows, tokens, hidden) for ids and mask, both (rows, tokens) int64."""
        raise NotImplementedError

    def _padded(self, rows: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        length = -(-max(map(len, rows)) // _STEP) * _STEP
        ids = np.full((len(rows), length), self._model.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)


class FirstStage(_Stage):
    """Implements `Backbone` with the first stage: texts alone, as the transformer reads any."""

    def _states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self._transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        return states


class SecondStage(_Stage):
    """Implements `Backbone` with the second stage: every row is read behind the context and the soft tokens.

    Args:
        model: the checkpoint.
        transformer: its second stage.
        context: the context matrix, (context size, hidden) float32.
    """

    def __init__(self, model: PublishedModel, transformer: Any, context: FloatArray) -> None:
        import torch

        super().__init__(model, transformer)
        layout, words = model.layout, self._embeddings()
        with torch.inference_mode():
            lead = torch.cat([torch.from_numpy(np.ascontiguousarray(context)), model.soft_tokens()])
            lead = lead.to(self._device, words.weight.dtype)
            # The stock class adds the type's vector to all it reads; what is to have none has it taken off before.
            self._lead = lead - self._type() if layout.switches.token_types == "training" else lead

    def _states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        import torch

        rows, length = ids.shape
        lead = len(self._lead)
        inputs = torch.cat([self._lead.expand(rows, -1, -1), self._words(ids)], dim=1)
        positions = context_positions(self._model.layout, length).to(self._device)
        seen = torch.cat([torch.ones(rows, lead, dtype=mask.dtype, device=self._device), mask], dim=1)
        states: torch.Tensor = self._transformer(
            inputs_embeds=inputs, attention_mask=seen, position_ids=positions[None]
        ).last_hidden_state
        return states[:, lead:]

    def _words(self, ids: torch.Tensor) -> torch.Tensor:
        """What stands for the text in front of the transformer, (rows, tokens, hidden)."""
        if self._model.layout.kind == "modernbert":
            made: torch.Tensor = self._transformer.embeddings(input_ids=ids)
            return made
        words: torch.Tensor = self._embeddings()(ids)
        return words if self._model.layout.switches.token_types == "training" else words + self._type()

    def _embeddings(self) -> Any:
        return self._transformer.get_input_embeddings()

    def _type(self) -> Any:
        """The vector of token type 0, (hidden,); ModernBERT has no token types, and a zero."""
        if self._model.layout.kind == "modernbert":
            return 0.0
        return self._transformer.embeddings.token_type_embeddings.weight[0]


def context_positions(layout: PublishedLayout, tokens: int) -> torch.Tensor:
    """The rotary position of context, soft tokens and `tokens` tokens of text, (all,) int64.

    In v1 the authors leave the context out of rotation, which is to rotate it as at position 0; what follows is rotated
    by its place in the whole row, and in v2 everything is.
    """
    import torch

    positions = torch.arange(layout.lead + tokens)
    if layout.unrotated:
        positions[: layout.context_size] = 0
    return positions


def _stock(layout: PublishedLayout, stage: StageName) -> Any:
    """A transformer of the stock class for the configuration of a stage, with whatever weights."""
    from transformers import ModernBertConfig, ModernBertModel, NomicBertConfig, NomicBertModel

    values: dict[str, Any] = layout.first if stage == FIRST else layout.second
    if layout.kind == "modernbert":
        return ModernBertModel(ModernBertConfig(**values))
    factory: Any = NomicBertModel
    return factory(NomicBertConfig(**values), add_pooling_layer=False)


def _wanted(layout: PublishedLayout, stage: StageName) -> dict[str, tuple[int, ...]]:
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
    for name in (_CONTEXT_LAYERS, SOFT, _OUTPUT_LAYERS):
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
