"""What a late-interaction model folder says, as data: everything that queries and documents are encoded by. No torch.

Read are PyLate, Stanford ColBERT, and the MultiVectorEncoder of sentence-transformers 6. They differ in where things
stand, not in what they mean: a marker behind CLS, a length for queries and one for documents, queries filled up with
the mask token, a chain of Dense layers over every token's state, and words whose vectors documents leave out.
Source: pylate 1.3, `models/colbert.py`; ColBERT's `artifact.metadata`; sentence-transformers 6.2,
`multi_vector_encoder/model.py`, whose reading of the older layouts is followed where they are silent.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ctxindex.encoding.backbones import hidden_size
from ctxindex.encoding.model_files import read_object, tensor_names, weight_files
from ctxindex.encoding.modules import DenseLayer, ModuleEntry, read_entries, read_layer, read_transformer_settings
from ctxindex.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PYLATE_QUERY_LENGTH = 32
STANFORD = "artifact.metadata"
"""What ColBERT itself writes beside a model."""

PYLATE_DOCUMENT_LENGTH = 180
PYLATE_MARKERS = {"query": "[Q] ", "document": "[D] "}
STANFORD_MARKERS = {"query": "[unused0] ", "document": "[unused1] "}
_PUNCTUATION = tuple(string.punctuation)
_PYLATE_KEYS = {"query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens", "skiplist_words"}


@dataclass(frozen=True, slots=True)
class Marker:
    """What stands behind CLS: `ids`; `text` is what the files call it.

    `lead` is a blank where the text that follows is to be tokenised with a blank in front (a marker of plain words
    that ends in one: a byte-level tokenizer glues it to the next word), and else empty.
    """

    text: str
    ids: tuple[int, ...]
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Expansion:
    """Queries are filled up with `token_id` to `length` tokens, special tokens and marker included.

    All positions filled up to `length` are scored; the others attend to them only with `attend`. With the strategy
    `fixed` a query is also cut at `length`; with `min` a longer one stays as it is.
    """

    length: int
    token_id: int
    attend: bool = False
    strategy: Literal["fixed", "min"] = "fixed"

    def describe(self) -> str:
        """For an index's spec: what decides the query's vectors, in one line."""
        return f"{self.strategy} {self.length} token {self.token_id}{' attended' if self.attend else ''}"


@dataclass(frozen=True, slots=True)
class ColbertLayout:
    """All that is needed to encode with a late-interaction folder.

    `backbone` holds config.json, the tokenizer and the transformer's weights; its states have `hidden` numbers. `dense`
    goes over each token's state in order, the result has `dim` numbers, and is divided by its L2 norm with `normalize`.
    Lengths are in tokens, special tokens and marker included; None where the files say nothing and the backbone's own
    limit holds. `query_length` is where a query is cut; with a fixed expansion, that is its length.
    Tokens with an id in `skiplist` (of `skiplist_words`) give no vectors in the tasks named in `skiplist_tasks`.
    """

    kind: Literal["pylate", "stanford", "sentence-transformers"]
    folder: Path
    backbone: Path
    hidden: int
    dim: int
    dense: tuple[DenseLayer, ...]
    normalize: bool
    query_marker: Marker
    document_marker: Marker
    query_length: int | None
    document_length: int | None
    expansion: Expansion | None
    skiplist_words: tuple[str, ...]
    skiplist: frozenset[int]
    skiplist_tasks: tuple[str, ...]
    mask_id: int | None


def query_length(layout: ColbertLayout, max_tokens: int) -> int:
    """The most tokens that are read of a query, CLS, marker and separator included."""
    expansion = layout.expansion
    if expansion is not None and expansion.strategy == "fixed":
        return min(expansion.length, max_tokens)
    return min(layout.query_length or max_tokens, max_tokens)


def read_colbert(folder: Path) -> ColbertLayout | None:
    """The layout of a late-interaction folder; None where it is a folder of another kind.

    Raises:
        ModelError: it is one, but its files are damaged, or ask for something that is not supported.
    """
    entries = read_entries(folder)
    config = read_object(folder / "config_sentence_transformers.json", missing_ok=True)
    kind = _kind(folder, entries, config)
    if kind is None:
        return None
    return _read_stanford(folder) if kind == "stanford" else _read_modular(kind, folder, entries, config)


def _kind(
    folder: Path, entries: list[ModuleEntry], config: dict[str, Any]
) -> Literal["pylate", "stanford", "sentence-transformers"] | None:
    if not entries:
        architectures = read_object(folder / "config.json", missing_ok=True).get("architectures") or []
        return "stanford" if "HF_ColBERT" in architectures else None
    kinds = {entry.kind for entry in entries}
    if "MultiVectorMask" in kinds or config.get("model_type") == "MultiVectorEncoder":
        return "sentence-transformers"
    named = config.get("model_type") == "ColBERT" or str(config.get("similarity_fn_name")).lower() == "maxsim"
    typed = any(entry.full_type.startswith("pylate.") for entry in entries)
    marked = "Pooling" not in kinds and bool(_PYLATE_KEYS & set(config))
    return "pylate" if named or typed or marked else None


def _read_modular(
    kind: Literal["pylate", "sentence-transformers"], folder: Path, entries: list[ModuleEntry], config: dict[str, Any]
) -> ColbertLayout:
    """PyLate's folders and those of sentence-transformers 6: one list of modules, two places for the settings."""
    transformers = [entry for entry in entries if entry.kind == "Transformer"]
    if len(transformers) != 1 or entries[0].kind != "Transformer":
        raise ModelError(f"{folder / 'modules.json'} does not begin with one Transformer module")
    backbone = transformers[0].folder
    tokens = _Vocabulary(backbone)
    pylate = kind == "pylate"
    settings = _settings(backbone, config)
    markers = _markers(config, PYLATE_MARKERS if pylate else {})
    mask = _mask_module(entries, config, pylate=pylate)
    hidden = hidden_size(read_object(backbone / "config.json"), backbone / "config.json")
    dense = _chain([entry for entry in entries if entry.kind == "Dense"], hidden)
    expansion = _expansion(settings, tokens, pylate=pylate or bool(_PYLATE_KEYS & set(config)))
    length = expansion.length if expansion and expansion.strategy == "fixed" else settings.get("query_length")
    return ColbertLayout(
        kind=kind,
        folder=folder,
        backbone=backbone,
        hidden=hidden,
        dim=dense[-1].out_features if dense else hidden,
        dense=dense,
        normalize=pylate or any(entry.kind == "Normalize" for entry in entries),
        query_marker=tokens.marker(markers["query"]),
        document_marker=tokens.marker(markers["document"]),
        query_length=length or (PYLATE_QUERY_LENGTH if pylate else None),
        document_length=settings.get("document_length") or (PYLATE_DOCUMENT_LENGTH if pylate else None),
        expansion=expansion,
        skiplist_words=mask[0],
        skiplist=tokens.ids_of(mask[0]),
        skiplist_tasks=mask[1],
        mask_id=tokens.mask_id,
    )


def _settings(backbone: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Lengths and expansion: the Transformer module's own file goes before the top-level one, as the library has it."""
    own = read_transformer_settings(backbone)
    # A null at the top level says nothing, save for query_expansion, where it says "off".
    outer = {key: value for key, value in config.items() if value is not None or key == "query_expansion"}
    return {**outer, **{key: own[key] for key in ("query_length", "document_length", "query_expansion") if key in own}}


def _markers(config: dict[str, Any], defaults: dict[str, str]) -> dict[str, str]:
    """Task -> the text in front; PyLate puts its prefix before a prompt, where a folder has both."""
    prompts = config.get("prompts") or {}
    markers: dict[str, str] = {}
    for task in ("query", "document"):
        prompt, prefix = prompts.get(task) or "", config.get(f"{task}_prefix")
        if prefix is None:
            prefix = "" if prompt else defaults.get(task, "")
        markers[task] = prefix + prompt.removeprefix(prefix)
    return markers


def _expansion(settings: dict[str, Any], tokens: _Vocabulary, *, pylate: bool) -> Expansion | None:
    """The dictionary of sentence-transformers 6, or PyLate's single settings: on where nobody says otherwise."""
    if "query_expansion" in settings:
        values = settings["query_expansion"]
    elif not pylate or settings.get("do_query_expansion") is False:
        values = None
    else:
        attend = settings.get("attend_to_expansion_tokens", settings.get("attend_to_mask_tokens"))
        values = {"attend": attend, "length": settings.get("query_length") or PYLATE_QUERY_LENGTH}
    if values is None:
        return None
    strategy, length = values.get("strategy", "fixed"), values.get("length")
    if strategy not in ("fixed", "min") or not isinstance(length, int):
        raise ModelError(f"{tokens.folder} has a query expansion that is not supported: {values}")
    return Expansion(length, tokens.expansion_id(values.get("token")), bool(values.get("attend")), strategy)


def _mask_module(
    entries: list[ModuleEntry], config: dict[str, Any], *, pylate: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The skiplist's words and the tasks it holds for."""
    known = {"Transformer", "Dense", "Normalize", "MultiVectorMask"}
    for entry in entries:
        if entry.kind not in known:
            raise ModelError(f"{entry.folder} is a module of the type {entry.full_type}, which is not supported")
    own = [entry.folder / "config.json" for entry in entries if entry.kind == "MultiVectorMask"]
    if not own:
        words = config.get("skiplist_words")
        return (_PUNCTUATION if pylate and words is None else tuple(words or ())), ("document",)
    values = read_object(own[0], missing_ok=True)
    if values.get("keep_only_token_ids"):
        raise ModelError(f"{own[0]} keeps only some tokens (keep_only_token_ids, for images), which is not supported")
    tasks = values.get("skiplist_tasks") or ["document"]
    return tuple(values.get("skiplist_words") or ()), (tasks,) if isinstance(tasks, str) else tuple(tasks)


def _chain(entries: list[ModuleEntry], hidden: int) -> tuple[DenseLayer, ...]:
    chain: list[DenseLayer] = []
    size = hidden
    for entry in entries:
        layer = read_layer(entry, "tokens")
        assert isinstance(layer, DenseLayer)
        if layer.in_features != size:
            raise ModelError(f"{entry.folder} takes {layer.in_features} numbers a token, and is given {size}")
        size = layer.out_features
        chain.append(replace(layer, level="tokens"))
    return tuple(chain)


def _read_stanford(folder: Path) -> ColbertLayout:
    metadata = read_object(folder / STANFORD, missing_ok=True)
    tokens = _Vocabulary(folder)
    weights = next((file for file in weight_files(folder) if "linear.weight" in tensor_names(file)), None)
    if weights is None:
        raise ModelError(f"{folder} is a ColBERT folder without linear.weight, its projection, among the weights")
    dim, hidden = tensor_names(weights)["linear.weight"]
    length = metadata.get("query_maxlen") or PYLATE_QUERY_LENGTH
    words = _PUNCTUATION if metadata.get("mask_punctuation", True) else ()
    return ColbertLayout(
        kind="stanford",
        folder=folder,
        backbone=folder,
        hidden=hidden,
        dim=dim,
        dense=(DenseLayer(hidden, dim, weights, level="tokens"),),
        normalize=True,
        query_marker=tokens.marker(_stanford_marker(metadata, "query_token_id", "query")),
        document_marker=tokens.marker(_stanford_marker(metadata, "doc_token_id", "document")),
        query_length=length,
        document_length=metadata.get("doc_maxlen"),
        expansion=Expansion(length, tokens.expansion_id(None), bool(metadata.get("attend_to_mask_tokens"))),
        skiplist_words=words,
        skiplist=tokens.ids_of(words),
        skiplist_tasks=("document",),
        mask_id=tokens.mask_id,
    )


def _stanford_marker(metadata: dict[str, Any], key: str, task: str) -> str:
    return f"{metadata[key]} " if metadata.get(key) else STANFORD_MARKERS[task]


class _Vocabulary:
    """The tokenizer of a folder, asked for ids by string: no id is ever assumed."""

    def __init__(self, folder: Path) -> None:
        from ctxindex.encoding.tokenizer import open_tokenizer, special_tokens

        self.folder = folder
        self._tokenizer: Tokenizer = open_tokenizer(folder)
        self._roles = special_tokens(folder)
        self.mask_id = self._role("mask_token")

    def _role(self, role: str) -> int | None:
        token = self._roles.get(role)
        return None if token is None else self._tokenizer.token_to_id(token)

    def marker(self, text: str) -> Marker:
        """The ids of a marker: one token where the vocabulary has it, with its blank or without, and else its words."""
        head = text if self._tokenizer.token_to_id(text) is not None else (text.split(None, 1) or [""])[0]
        token_id = self._tokenizer.token_to_id(head) if head else None
        ids: tuple[int, ...] = () if token_id is None else (token_id,)
        rest = text if token_id is None else text.removeprefix(head)
        words = rest.rstrip(" ")
        ids += tuple(self._tokenizer.encode(words, add_special_tokens=False).ids) if words else ()
        # Behind one token of its own, a text begins as it would alone; behind words, with the blank between them.
        return Marker(text, ids, " " if words and rest != words else "")

    def ids_of(self, words: tuple[str, ...]) -> frozenset[int]:
        """The ids of the words that are one token each; others cannot be told apart from unknown text."""
        found = {self._tokenizer.token_to_id(word) for word in words} - {None}
        return frozenset(token_id for token_id in found if token_id is not None)

    def expansion_id(self, token: str | None) -> int:
        """The token that queries are filled up with: the one named, else the mask, else the end of the text."""
        token_id = self._tokenizer.token_to_id(token) if token else self.mask_id
        if token_id is None and not token:
            token_id = self._role("eos_token")
        if token_id is None:
            raise ModelError(f"the tokenizer in {self.folder} has no {token or 'mask'} token to fill queries up with")
        return token_id
