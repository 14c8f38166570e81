"""What the folder of a published CDE checkpoint says: which transformer its stages are, how they are used. No torch.

The authors' checkpoints (`jxm/cde-small-v1`, `-v2`) are two transformers in one safetensors file and a config.json with
keys that begin with `transductive_`, their word for what is the corpus context here. The folder holds neither the
configuration of the transformer, which it names as `embedder`, nor, in v2, a tokenizer: the sizes of the two
transformers that were published are known here, and a tokenizer that is not in the folder is taken from the model that
it is of.

Three things cannot be read off the files, because the authors' own sources differ about them (`Switches`). They are as
in the code beside the weights, unless config.json has an entry `"ctxindex": {"residual": true, …}`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from ctxindex.encoding.backbones import BackboneFacts
from ctxindex.encoding.model_files import integer, read_object, tensor_names, weight_files
from ctxindex.errors import ModelError

StageName: TypeAlias = Literal["first_stage_model.embedder.", "second_stage_model.backbone."]
"""What the names of a stage's transformer begin with in the file of the weights."""

FIRST, SECOND = get_args(StageName)
NULL = "second_stage_model.sequence_dropout_null_embedding"
"""The vector that stands for no context, (hidden,), in checkpoints that were trained with sequence dropout."""

SOFT = "second_stage_model.prompt_projection"

PREFIXES = {"query": "search_query: ", "document": "search_document: "}
"""What the checkpoints were trained with for retrieval, where the folder does not say."""

TokenTypes: TypeAlias = Literal["hub", "training"]

_CLASSES = {"DatasetTransformer", "ContextualDocumentEmbeddingTransformer"}

_NOMIC = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 2048,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "rope_theta": 1000.0,
}
_MODERN = {
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160_000.0,
    "local_rope_theta": 10_000.0,
}
_KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "nomic-ai/nomic-bert-2048": ("nomic_bert", _NOMIC),
    "answerdotai/ModernBERT-base": ("modernbert", _MODERN),
}
"""Transformers whose sizes need not be looked up: what both were published with."""

_OLD_NOMIC = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
}
"""Names of the stock class -> names before transformers had one."""

_NOMIC_IS = {
    "activation_function": "swiglu",
    "prenorm": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "parallel_block": False,
    "causal": False,
    "use_rms_norm": False,
    "rotary_emb_interleaved": False,
    "rotary_emb_fraction": 1.0,
}
"""What the stock class does; a configuration that says otherwise is of a model that it cannot be."""

_MODERN_NAMES = (
    *_MODERN,
    "attention_bias",
    "hidden_activation",
    "layer_types",
    "mlp_bias",
    "norm_bias",
    "rope_parameters",
)
_WORDS = {"nomic_bert": "embeddings.word_embeddings.weight", "modernbert": "embeddings.tok_embeddings.weight"}

_BERT = "google-bert/bert-base-uncased"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, slots=True)
class Switches:
    """What the authors' sources disagree on; the defaults are the code that is published beside the weights.

    `residual` adds the mean to what the output layers make of it (training code of 2025, the card of v2).
    `pool_prompt` takes CLS and the prefix into the mean of a text; the configuration of v2 says not to, its code does.
    `token_types`: NomicBERT adds the vector of token type 0 to all that it reads. Where the code beside the weights
    adds it to text twice ("hub"), the training code adds it to text once and to nothing else ("training").
    """

    residual: bool = False
    pool_prompt: bool = True
    token_types: TokenTypes = "hub"


@dataclass(frozen=True)
class PublishedLayout:
    """A published checkpoint.

    `kind` is the `model_type` of both stages, `first` and `second` the arguments of its configuration class.
    `context_size` texts make the context, neither more nor fewer; they and `soft_tokens` constant vectors are read in
    front of every text. `unrotated` says that the context stands at rotary position 0 (v1) instead of one behind the
    other. `max_tokens` is the longest text, `tokenizer` the folder that holds the tokenizer, `null` whether the weights
    hold a vector for no context.
    """

    folder: Path
    kind: str
    first: dict[str, Any]
    second: dict[str, Any]
    context_size: int
    soft_tokens: int
    max_tokens: int
    unrotated: bool
    tokenizer: Path
    null: bool
    switches: Switches

    @property
    def hidden(self) -> int:
        """Numbers of a state, a context vector and a vector of the model."""
        return int(self.second["hidden_size"])

    @property
    def lead(self) -> int:
        """How many positions are read in front of every text."""
        return self.context_size + self.soft_tokens

    @property
    def facts(self) -> BackboneFacts:
        """The second stage's transformer."""
        return self._facts(self.second)

    @property
    def first_facts(self) -> BackboneFacts:
        """The first stage's transformer."""
        return self._facts(self.first)

    def _facts(self, stage: dict[str, Any]) -> BackboneFacts:
        layers, positions = stage["num_hidden_layers"], stage["max_position_embeddings"]
        return BackboneFacts(self.kind, self.hidden, layers, positions, rotary=True, causal=False)

    def described(self) -> dict[str, Any]:
        """All of it that decides vectors, as JSON values."""
        names = ("kind", "first", "second", "context_size", "soft_tokens", "unrotated")
        return {**{name: getattr(self, name) for name in names}, "switches": asdict(self.switches)}


def read_published(folder: Path, *, local_only: bool = False) -> PublishedLayout | None:
    """The checkpoint in `folder`; None where config.json is none of a published CDE model.

    What is not in the folder is taken from the hub's cache, and downloaded unless `local_only`.

    Raises:
        ModelError: it is of a kind that cannot be used, or what it needs besides is not there; the message says what.
    """
    file = folder / "config.json"
    config = read_object(file, missing_ok=True)
    if "transductive_corpus_size" not in config:
        return None
    _require_usual(file, config)
    embedder = str(config.get("embedder"))
    kind, values = _backbone(folder, embedder, local_only=local_only)
    shapes = {name: shape for each in weight_files(folder) for name, shape in tensor_names(each).items()}
    hidden = values["hidden_size"]
    stages = {
        stage: _limited(values, config.get(limit), shapes.get(stage + _WORDS[kind], (0,))[0])
        for stage, limit in ((FIRST, "limit_layers_first_stage"), (SECOND, "limit_layers"))
    }
    return PublishedLayout(
        folder=folder,
        kind=kind,
        first=stages[FIRST],
        second=stages[SECOND],
        context_size=integer(config, "transductive_corpus_size", file),
        soft_tokens=shapes.get(f"{SOFT}.2.bias", (0,))[0] // hidden,
        max_tokens=integer({"max_seq_length": 512, **config}, "max_seq_length", file),
        unrotated=kind == "nomic_bert" and bool(config.get("disable_transductive_rotary_embedding", True)),
        tokenizer=_tokenizer(folder, _BERT if kind == "nomic_bert" else embedder, embedder, local_only=local_only),
        null=NULL in shapes,
        switches=_switches(file, config),
    )


def _require_usual(file: Path, config: dict[str, Any]) -> None:
    """Refuse what the authors' code can do and neither of their checkpoints does."""
    classes = set(config.get("architectures") or _CLASSES)
    if not classes & _CLASSES or config.get("architecture", "transductive") != "transductive":
        raise ModelError(
            f"{file} is of {', '.join(sorted(classes))} ({config.get('architecture')}); CDE models with two stages are "
            f"{' or '.join(sorted(_CLASSES))} (transductive)"
        )
    usual = {
        "transductive_tokens_per_document": 1,
        "transductive_tie_token_embeddings": False,
        "pooling_strategy": "mean",
        "embedding_output_dim": None,
        "dataset_backbone": config.get("embedder"),
    }
    for key, value in usual.items():
        if config.get(key) not in (value, None):
            raise ModelError(f"{file}: {key} is {config[key]!r}; CDE models are read with {value!r}, as published")
    if config.get("pool_ignore_contextual_tokens") is False and classes != {"DatasetTransformer"}:
        raise ModelError(f"{file}: pool_ignore_contextual_tokens is false; vectors are made of the text alone here")


def _backbone(folder: Path, name: str, *, local_only: bool) -> tuple[str, dict[str, Any]]:
    """`model_type` and configuration of the transformer called `name`, without the size of its vocabulary."""
    if name in _KNOWN:
        kind, values = _KNOWN[name]
        return kind, (_nomic if kind == "nomic_bert" else _modern)(values)
    where = folder / name if (folder / name).is_dir() else _fetched(name, ("config.json",), local_only)
    if where is None or not (where / "config.json").is_file():
        raise ModelError(
            f"{folder} is built on {name}, whose configuration is not on this machine and cannot be had: put its "
            f"config.json into a folder beside, and that folder's path as embedder into {folder / 'config.json'}"
        )
    config = read_object(where / "config.json")
    kind = str(config.get("model_type"))
    if kind not in _WORDS:
        raise ModelError(f"{folder} is built on {name}, a {kind}; CDE models are read with NomicBERT or ModernBERT")
    return kind, _nomic(config) if kind == "nomic_bert" else _modern(config)


def _nomic(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `NomicBertConfig`, from a configuration of either generation."""
    for key, value in _NOMIC_IS.items():
        if (config.get(key) or False) != value and key in config:
            raise ModelError(f"a NomicBERT with {key} {config[key]!r} cannot be read; known is {value!r}")
    found = {name: config.get(name, config.get(old)) for name, old in _OLD_NOMIC.items()}
    found["type_vocab_size"] = config.get("type_vocab_size")
    if found["hidden_size"] is not None and found["intermediate_size"] is None:
        found["intermediate_size"] = 4 * int(found["hidden_size"])
    values = {**_NOMIC, **{name: value for name, value in found.items() if value is not None}}
    rope = config.get("rope_parameters") or {"rope_type": "default", "rope_theta": values["rope_theta"]}
    del values["rope_theta"]
    return {**values, "pad_token_id": config.get("pad_token_id") or 0, "rope_parameters": rope}


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `ModernBertConfig`; token ids decide nothing where embeddings go in, and are left out."""
    values = {**_MODERN, **{name: config[name] for name in _MODERN_NAMES if config.get(name) is not None}}
    ids = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    return {**values, **dict.fromkeys(ids)}


def _limited(values: dict[str, Any], layers: Any, vocabulary: int) -> dict[str, Any]:
    """The configuration of one stage: the first `layers` layers, where that is a number, and its own vocabulary."""
    values = {**values, "vocab_size": vocabulary}
    if layers:
        values["num_hidden_layers"] = int(layers)
        if "layer_types" in values:
            values["layer_types"] = values["layer_types"][: int(layers)]
    return values


def _tokenizer(folder: Path, name: str, embedder: str, *, local_only: bool) -> Path:
    """The folder of the tokenizer that the model was trained with, which is that of the model called `name`."""
    for place in (folder, folder / embedder):
        if (place / "tokenizer.json").is_file():
            return place
    found = _fetched(name, _TOKENIZER_FILES, local_only)
    if found is None or not (found / "tokenizer.json").is_file():
        raise ModelError(
            f"{folder} has no tokenizer.json, and that of {name}, which it was trained with, is not on this machine "
            f"and cannot be had from the hub: download tokenizer.json and tokenizer_config.json of {name} into {folder}"
        )
    return found


def _fetched(name: str, files: tuple[str, ...], local_only: bool) -> Path | None:
    """A folder with those of `files` that the model on the hub has: from the cache, else downloaded; None without."""
    from huggingface_hub import snapshot_download

    for local in (True,) if local_only else (True, False):
        try:
            found = Path(snapshot_download(name, allow_patterns=list(files), local_files_only=local))
        except Exception:  # the hub's client raises many kinds, from several libraries, for one fact
            continue
        if (found / files[0]).is_file():
            return found
    return None


def _switches(file: Path, config: dict[str, Any]) -> Switches:
    said = config.get("ctxindex") or {}
    known = Switches.__dataclass_fields__
    if not isinstance(said, dict) or not said.keys() <= known.keys():
        raise ModelError(f"{file}: under ctxindex stand {', '.join(known)}, and nothing else")
    types = said.get("token_types", "hub")
    flags = {name: said.get(name, getattr(Switches(), name)) for name in ("residual", "pool_prompt")}
    if types not in get_args(TokenTypes) or not all(isinstance(value, bool) for value in flags.values()):
        raise ModelError(
            f"{file}: under ctxindex, residual and pool_prompt are true or false, and token_types is hub or training"
        )
    return Switches(**flags, token_types=cast("TokenTypes", types))
