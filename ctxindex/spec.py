"""What decides an index's vectors, and the hash of it.

An `IndexSpec` is written into the store when an index is made, and everything that later touches the index reads it
from there. Its `fingerprint` goes into every revision, so vectors of two specs can never be taken for one another.
The model's *name* is kept for people and for finding the files again, but takes no part in the fingerprint: the digest
of the weights does, so a model folder may move or be renamed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from ctxindex.errors import MismatchError

FORMAT_VERSION = 2
"""Version of the layout in the store: record fields, payload keys, chunk ids, the form of this spec."""

Method: TypeAlias = Literal["late", "late-interaction", "independent", "cde"]
METHODS: tuple[Method, ...] = get_args(Method)

Owner: TypeAlias = Literal["centre", "first", "mean"]
OWNERS: tuple[Owner, ...] = get_args(Owner)

Isolated: TypeAlias = Literal["chunk", "title", "opening"]
ISOLATED: tuple[Isolated, ...] = get_args(Isolated)

Join: TypeAlias = Literal["sep", "raw"]
JOINS: tuple[Join, ...] = get_args(Join)

Windows: TypeAlias = Literal["window", "token-window", "full", "chunk"]
WINDOWS: tuple[Windows, ...] = get_args(Windows)

ChunkPooling: TypeAlias = Literal["strict", "inclusive", "authors-compat"]
POOLINGS: tuple[ChunkPooling, ...] = get_args(ChunkPooling)
"""Which tokens a chunk in context is the mean of, or, with late interaction, keeps the vectors of: `strict` its content
alone; `inclusive` in the first chunk of a document also CLS and prefix, and in the last also the separator that closes
it; `authors-compat` in the first chunk CLS, where there is no prefix, and with late interaction always, with the marker
(what the code of arXiv 2505.24782 does)."""

PoolingName: TypeAlias = ChunkPooling | Literal["no-prompt", "cls", "lasttoken"]
"""A text of its own is pooled as its model was trained: `inclusive` is the mean of all its tokens, `no-prompt` that
without CLS and prompt; `cls` and `lasttoken` take one state."""

NULL_CONTEXT = "null"
"""The `context` of an encoder that reads with the model's own stand-in for a corpus: what there is before any."""

Sampling: TypeAlias = Literal["by-document", "uniform-chunk"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
"""How a corpus context is drawn: documents first and a chunk of each (the default), or chunks wherever they stand."""

_NAMESPACE = uuid.UUID("6a4f3c7e-8f6b-5d0e-9a55-2d3f0f6f7c11")
_NOT_VECTORS = {"encoder.model"}
LATER = {"encoder.context": ""}
"""Fields that came later, with the value that says what was before: left out of the fingerprint there, so that an index
made before is still the same."""


@dataclass(frozen=True, slots=True)
class ChunkerSpec:
    """How documents are cut: `size` and `overlap` in `unit`s; `version` changes when equal settings cut otherwise."""

    name: str
    size: int
    unit: Literal["tokens", "chars"]
    overlap: int
    version: int = 1


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Everything about an encoder that decides its vectors.

    `digest` is the sha256 of the weights. `windows` says how a document beyond `max_tokens`, the size of a window with
    its special tokens, is read: in windows of whole chunks, of tokens, in one pass of any length, or each chunk alone
    (with `cde` and `late-interaction`; it is then pooled as the model pools any text, and of several vectors has those
    of its special tokens, too). `owner` says which
    window a chunk is taken from. `overlap` is what windows share: with the owner "centre" the tokens that each reads
    beyond the chunks it owns, on each side; with `token-window` the tokens that two have in common; else the most
    chunks. `join` says what chunks in a window are: texts of their own with separators in between (`sep`), or spans of
    the document as it stands (`raw`); `pooling` which tokens a chunk vector is the mean of. With the method
    `independent` nothing of this applies, and `windows` is "window". `anchor` is how many of the
    document's first tokens every window after the first begins with, `anchor_title` whether every window begins with
    the title. `blend` is the weight b of the isolated vector in `normalize((1 - b) contextual + b isolated)`, of the
    chunk or, where it has several, of each of its tokens, and `isolated` what that one is read behind: nothing, the
    title, or (`opening`) the title, in a document without one its first tokens. `dtype` is that of the forward pass;
    vectors are pooled in float32, have unit length, and are stored as `storage` says. `dim` counts the numbers that are
    kept of the model's vectors. `force_mean` says that means are taken of a model that was not trained for them.
    `files` is a sha256 over what the tokenizer and the model's configuration say, without what decides no vector.
    `context` is the id of the corpus context that a CDE encoder conditions on, "null" for the model's own stand-in for
    one, and empty with every other method, and where a CDE model that has no stand-in was not given one yet.

    The rest is for late interaction. `multivector` is whether a chunk has several vectors: those of its tokens, without
    the tokens that the model's files say to skip where `skiplist` is "model", then clustered to their number divided by
    `pool_factor`; what is clustered is blended already. A query is read up to `query_length` tokens and then filled up
    as `query_expansion` says.
    """

    model: str
    digest: str
    method: Method
    dim: int
    max_tokens: int
    pooling: PoolingName
    join: Join | Literal["none"]
    overlap: int
    owner: Owner | Literal["none"]
    query_prefix: str = ""
    document_prefix: str = ""
    anchor: int = 0
    anchor_title: bool = False
    blend: float = 0.0
    isolated: Isolated = "chunk"
    dtype: str = "float32"
    multivector: bool = False
    force_mean: bool = False
    storage: Literal["float32", "float16"] = "float32"
    pool_factor: int = 1
    skiplist: Literal["none", "model"] = "none"
    query_length: int | None = None
    query_expansion: str = "none"
    files: str = ""
    windows: Windows = "window"
    context: str = ""


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """The spec of an index: loader, chunker and encoder, and the version of the format they are stored in."""

    loader: int
    chunker: ChunkerSpec
    encoder: EncoderSpec
    format_version: int = FORMAT_VERSION

    @property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON of all that decides vectors."""
        decides = ((name, value) for name, value in _flat(self.to_json()) if name not in _NOT_VECTORS)
        return _digest({name: value for name, value in decides if name not in LATER or value != LATER[name]})

    def to_json(self) -> dict[str, Any]:
        """Nested JSON values; the form that is stored and shown."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> IndexSpec:
        """The inverse of `to_json`.

        Raises:
            MismatchError: the index was written in a format this version does not read.
        """
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise MismatchError(
                f"the index has format version {version}, this ctxindex reads version {FORMAT_VERSION}: "
                "use the ctxindex release that wrote it, or ingest into a new index (--index NAME)"
            )
        try:
            chunker, encoder = ChunkerSpec(**values["chunker"]), EncoderSpec(**values["encoder"])
            return cls(loader=values["loader"], chunker=chunker, encoder=encoder)
        except (KeyError, TypeError) as error:
            raise MismatchError(f"the index's stored spec is not readable ({error}): ingest into a new index") from None

    def differences(self, other: IndexSpec) -> list[tuple[str, Any, Any]]:
        """(field, own value, other's value) for every field that decides vectors and is not the same in both."""
        others = dict(_flat(other.to_json()))
        return [
            (name, value, others[name])
            for name, value in _flat(self.to_json())
            if name not in _NOT_VECTORS and others[name] != value
        ]


def revision(fingerprint: str, content_hash: str) -> str:
    """The revision of a document: a hash of everything stored of it and of everything that decides its vectors."""
    return _digest([fingerprint, content_hash])[:32]


def chunk_id(doc_id: str, document_revision: str, ordinal: int) -> str:
    """A UUID: the same chunk of the same revision has the same id on every machine (RFC 9562, version 5)."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([doc_id, document_revision, ordinal])))


def describe(differences: list[tuple[str, Any, Any]], *, stored: str = "index", asked: str = "asked for") -> str:
    """The differences of two specs as lines for a person."""
    return "\n".join(f"  {name}: {stored} {mine!r}, {asked} {theirs!r}" for name, mine, theirs in differences)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _digest(value: Any) -> str:
    canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
