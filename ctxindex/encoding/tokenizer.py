"""Text -> token ids, content only: no special tokens are added, and none are read out of the text.

A literal `[SEP]` in a contract is four characters to us. Windows put the special tokens in, by id, where they belong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    from tokenizers import Encoding, Tokenizer

    Ids = npt.NDArray[np.int32]

_SLICE = 256
"""Texts tokenised in one call: an `Encoding` keeps a few hundred bytes a token, so long documents go in slices."""

_KEPT = 4_000
"""Texts whose ids are kept after they were counted: the chunks of some documents, a few megabytes."""

_STRETCH = 100_000
"""Characters of a long text that are tokenised in one call, for the same reason."""

_NEIGHBOURHOOD = 200
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Located:
    """The tokens of a text and where they stand: all arrays are (tokens,) int32.

    `begins` holds the first character of a token that is no blank, or its first where there are only blanks; `ends` the
    character behind its last.
    """

    ids: Ids
    begins: Ids
    ends: Ids


class ModelTokenizer:
    """The fast tokenizer of a model folder, with the ids of its special tokens. Safe to share between threads.

    `cls_id` is None where a model begins with its text, and `closes` says whether it ends a text with `sep_id`.

    Implements `ctxindex.types.Tokenizer`.
    """

    def __init__(self, folder: Path, *, lower_case: bool = False) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._counted: dict[str, Ids] = {}
        if lower_case:
            _lower(self._tokenizer)
        names = {"pad_token": "[PAD]", **special_tokens(folder)}  # some folders of BERT name none
        head, tail = _frame_ids(self._tokenizer)
        self.cls_id = head[0] if head else None
        self.sep_id = tail[-1] if tail else self._id(names, "sep_token", "eos_token")
        self.closes = bool(tail)
        self.pad_id = self._id(names, "pad_token", "eos_token")

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """The content ids of each text, each tokenised alone: int32 arrays of any length, zero included."""
        known = [self._counted.pop(text, None) for text in texts]
        missing = [text for text, ids in zip(texts, known, strict=True) if ids is None]
        rest = iter(self._ids(missing))
        return [next(rest) if ids is None else ids for ids in known]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Content tokens of each text, tokenised alone.

        What is counted together is kept for `ids`, which is asked next for the chunks of a document just cut.
        """
        if len(texts) < 2:
            return [len(encoding) for encoding in self._encode(texts)]
        found = self._ids(texts)
        if len(self._counted) + len(texts) > _KEPT:
            self._counted.clear()
        self._counted.update(zip(texts, found, strict=True))
        return list(map(len, found))

    def _ids(self, texts: Sequence[str]) -> list[Ids]:
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in self._encode(texts)]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The character span of each content token of `text`, in order."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)

    def locate(self, text: str, lead: str = "") -> Located:
        """The tokens of `text`, which is read behind the blanks `lead`, and where they stand in it.

        A token of these blanks alone begins at a negative place, and is none of the text. The ids are those of the
        whole text; it is tokenised in stretches, so that a book needs little more memory than a page, and cut only
        where that changes no token.
        """
        parts: list[Located] = []
        text, start, shift = lead + text, 0, np.int32(len(lead))
        while start < len(text) or not parts:
            end = self._stretch_end(text, start)
            encoding = self._tokenizer.encode(text[start:end], add_special_tokens=False)
            parts.append(_located(encoding, text, start))
            start = end
        begins = np.concatenate([part.begins for part in parts]) - shift
        ends = np.concatenate([part.ends for part in parts]) - shift
        return Located(np.concatenate([part.ids for part in parts]), begins, ends)

    def _stretch_end(self, text: str, start: int) -> int:
        """Where a stretch from `start` on may end: before a single blank, where tokens on both sides stay the same."""
        place, tries = start + _STRETCH, 0
        while place + 1 < len(text) and tries < _TRIES:
            if text[place].isspace() and not (text[place - 1].isspace() or text[place + 1].isspace()):
                if self._may_cut(text, place):
                    return place
                tries += 1
            place += 1
        return len(text)

    def _may_cut(self, text: str, place: int) -> bool:
        around = text[max(0, place - _NEIGHBOURHOOD) : place], text[place : place + _NEIGHBOURHOOD]
        before, after, both = self.ids([*around, "".join(around)])
        return np.array_equal(np.concatenate([before, after]), both)

    def prefix(self, text: str) -> tuple[Ids, str]:
        """The ids of a prefix without the blanks it ends in, and these blanks, to be put before the text that follows.

        A byte-level tokenizer glues a blank to the next word, so `"query: " + text` has the ids of `"query:"` and then
        those of `" " + text`; to other tokenizers the blank makes no difference. (Those that mark the beginning of
        words, as SentencePiece does, read a text behind a prefix that ends in no blank as if it ended in one.)
        """
        words = text.rstrip(" ")
        return (self.ids([words])[0] if words else np.empty(0, dtype=np.int32)), text[len(words) :]

    def _encode(self, texts: Sequence[str]) -> Iterator[Encoding]:
        for start in range(0, len(texts), _SLICE):
            yield from self._tokenizer.encode_batch_fast(list(texts[start : start + _SLICE]), add_special_tokens=False)

    def _id(self, names: dict[str, str], *roles: str) -> int:
        for role in roles:
            token_id = self._tokenizer.token_to_id(names[role]) if role in names else None
            if token_id is not None:
                return int(token_id)
        raise ModelError(f"the tokenizer names no {roles[0]}, which windows are built with")


def _located(encoding: Encoding, text: str, shift: int) -> Located:
    """The tokens of one stretch, which begins at character `shift` of `text`."""
    spans = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2) + np.int32(shift)
    begins = spans[:, 0].copy()
    for token, (start, end) in enumerate(spans.tolist()):
        if start < end and text[start].isspace():
            stripped = text[start:end].lstrip()
            begins[token] = end - len(stripped) if stripped else start
    return Located(np.array(encoding.ids, dtype=np.int32), begins, spans[:, 1])


def open_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer of a folder, which reads every text as plain text.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"{folder} has no tokenizer.json: save the model with its fast tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"cannot read {file}: {error}") from None
    # What the file says of truncation and padding is a habit of training; here nothing may be cut or filled.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _frame_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that the model's own post-processor puts before and behind a text.

    Raises:
        ModelError: more than one before a text, or more than one behind it.
    """
    framed, mask = (encoding := tokenizer.encode("a")).ids, encoding.special_tokens_mask
    inside = [position for position, special in enumerate(mask) if not special]
    first, last = (inside[0], inside[-1]) if inside else (len(framed), len(framed))
    head, tail = framed[:first], framed[last + 1 :]
    if len(head) > 1 or len(tail) > 1:
        raise ModelError(
            f"the tokenizer puts {len(head)} tokens before and {len(tail)} behind a text; known is one each"
        )
    return head, tail


def _lower(tokenizer: Tokenizer) -> None:
    """Lower-case what comes in, as Sentence-Transformers does where a model's file says do_lower_case."""
    from tokenizers import normalizers

    own = tokenizer.normalizer
    steps = [normalizers.Lowercase(), *([] if own is None else [own])]
    tokenizer.normalizer = normalizers.Sequence(steps)


def special_tokens(folder: Path) -> dict[str, str]:
    """Role -> token, from whichever of the two files names it; a token may be a string or an object with `content`."""
    names: dict[str, str] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        if not file.is_file():
            continue
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for role, value in values.items():
            token = value.get("content") if isinstance(value, dict) else value
            if role.endswith("_token") and isinstance(token, str):
                names.setdefault(role, token)
    return names
