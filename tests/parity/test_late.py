"""Late chunking in all its forms against the definitions, written out in float64 with transformers and nothing of ours.

The ids come from the checkpoint's own tokenizer, called on the whole text as the reference codes call it.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.types import Chunk, ChunkedDocument, Document, EncodedDocument
from tests.encoding.stand_in import chunked
from tests.encoding.tiny import save_sentence_transformer

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

TOLERANCE = 1e-5
PROMPTS = {"query": "search query: ", "document": "search document: "}
TEXT = "Napoleon was born in Corsica.\r\n\r\nÄrger 12 %, naïve!  He became emperor 🙂 in 東京; he died."
LONG = " ".join(f"{TEXT} The agreement {number} may be terminated early by either party." for number in range(7))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """BERT with absolute positions, ModernBERT with local attention and a byte-level tokenizer; with and without."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "bert": save_sentence_transformer(folder / "bert"),
        "bert with prompts": save_sentence_transformer(folder / "prompted", prompts=PROMPTS),
        "modernbert": save_sentence_transformer(folder / "modern", "modernbert"),
        "modernbert with prompts": save_sentence_transformer(folder / "modern-p", "modernbert", prompts=PROMPTS),
    }


MODELS = pytest.mark.parametrize("name", ["bert", "bert with prompts", "modernbert", "modernbert with prompts"])


def prompt_of(name: str) -> str:
    return PROMPTS["document"] if "prompts" in name else ""


def encode(folder: Path, document: ChunkedDocument, **options: Any) -> EncodedDocument:
    encoder = load_encoder(str(folder), EncoderOptions(method="late", device="cpu", batch_tokens=64, **options))
    (result,) = encoder.encode_documents([document])
    assert isinstance(result, EncodedDocument), result
    return result


def cut(text: str, edges: list[tuple[int, int]]) -> ChunkedDocument:
    chunks = tuple(Chunk(number, start, end, text[start:end]) for number, (start, end) in enumerate(edges))
    return ChunkedDocument(Document("a", text), chunks)


def tight(text: str, count: int) -> list[tuple[int, int]]:
    """`count` spans of about equal length, wherever they fall, that begin and end in no blank and leave only blanks."""
    spans = [(len(text) * n // count, len(text) * (n + 1) // count) for n in range(count)]
    parts = [text[start:end] for start, end in spans]
    return [
        (start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip()))
        for (start, end), part in zip(spans, parts, strict=True)
    ]


def states(folder: Path, ids: list[int]) -> torch.Tensor:
    """(tokens, hidden), float64."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([ids])).last_hidden_state[0]
    return found


def whole_text(folder: Path, prompt: str, text: str) -> tuple[list[int], list[int]]:
    """The ids of a text as the model reads it, and for each the character of `text` it begins at (-1 in the prompt)."""
    call = AutoTokenizer.from_pretrained(folder)(prompt + text, return_offsets_mapping=True)
    begins = []
    for start, end in call["offset_mapping"]:
        blanks = len((prompt + text)[start:end]) - len((prompt + text)[start:end].lstrip())
        begins.append(-1 if start == end else start + (blanks if blanks < end - start else 0) - len(prompt))
    return call["input_ids"], begins


def owners(begins: list[int], edges: list[tuple[int, int]], *, inclusive: bool) -> list[list[int]]:
    """The positions that each chunk owns."""
    owned = [[at for at, begin in enumerate(begins) if start <= begin < end] for start, end in edges]
    if inclusive:  # every position goes to the last chunk that has begun, or to the first
        firsts = [0, *(positions[0] for positions in owned[1:]), len(begins)]
        owned = [list(range(*border)) for border in pairwise(firsts)]
    return owned


def unit_means(all_states: torch.Tensor, owned: list[list[int]]) -> FloatArray:
    means = torch.stack([all_states[positions].mean(dim=0) for positions in owned])
    return np.asarray(torch.nn.functional.normalize(means, dim=1), dtype=np.float32)


@MODELS
@pytest.mark.parametrize("pooling", ["strict", "inclusive"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_raw_equals_the_definition_in_one_window(models: dict[str, Path], name: str, pooling: str, count: int) -> None:
    edges = tight(TEXT, count)
    ids, begins = whole_text(models[name], prompt_of(name), TEXT)
    assert len(ids) <= 128
    expected = unit_means(states(models[name], ids), owners(begins, edges, inclusive=pooling == "inclusive"))
    found = encode(models[name], cut(TEXT, edges), join="raw", pooling=pooling)
    np.testing.assert_allclose(found.vectors, expected, atol=TOLERANCE)


@MODELS
def test_raw_chunks_that_overlap_are_means_over_all_that_begins_in_them(models: dict[str, Path], name: str) -> None:
    edges = [(start, min(len(TEXT), end + 9)) for start, end in tight(TEXT, 4)]
    ids, begins = whole_text(models[name], prompt_of(name), TEXT)
    assert len(ids) <= 128
    expected = unit_means(states(models[name], ids), owners(begins, edges, inclusive=False))
    found = encode(models[name], cut(TEXT, edges), join="raw")
    np.testing.assert_allclose(found.vectors, expected, atol=TOLERANCE)
    assert found.n_tokens > len(begins) - begins.count(-1), "shared tokens count for each"


@MODELS
@pytest.mark.parametrize("join", ["raw", "sep"])
def test_inclusive_gives_a_document_of_one_chunk_the_models_own_vector(
    models: dict[str, Path], name: str, join: str
) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(models[name]), device="cpu").encode_document([TEXT], normalize_embeddings=True)
    found = encode(models[name], chunked("a", [TEXT]), join=join, pooling="inclusive")
    np.testing.assert_allclose(found.vectors, expected, atol=TOLERANCE)
    strict = encode(models[name], chunked("a", [TEXT]), join=join)
    assert np.abs(strict.vectors - expected).max() > 1e-4


@pytest.mark.parametrize("kind", ["bert", "modernbert", "xlm-roberta", "qwen3", "qwen3-open"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_inclusive_does_so_with_every_kind_of_frame(tmp_path: Path, kind: str, include_prompt: bool) -> None:
    """Without CLS, without a closing separator, and with a prompt that the model leaves out of its own mean."""
    from sentence_transformers import SentenceTransformer

    folder = save_sentence_transformer(tmp_path / "model", kind, prompts=PROMPTS, include_prompt=include_prompt)
    expected = SentenceTransformer(str(folder), device="cpu").encode_document([TEXT], normalize_embeddings=True)
    for join in ("raw", "sep"):
        found = encode(folder, chunked("a", [TEXT]), join=join, pooling="inclusive", force_mean=False)
        np.testing.assert_allclose(found.vectors, expected, atol=TOLERANCE)
        blended = encode(folder, chunked("a", [TEXT]), join=join, pooling="inclusive", blend=0.5)
        np.testing.assert_allclose(blended.vectors, expected, atol=TOLERANCE)


CHUNKS = ["Napoleon was born in Corsica.", "He became emperor; and then, he died in exile!", "naïve", "the law"]


def as_the_authors(folder: Path, prefix: str, chunks: list[str]) -> FloatArray:
    """Joined by the separator's string, one call, spans looked for by its id; the prefix cut away, CLS with it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prefix + tokenizer.sep_token.join(chunks))["input_ids"]
    cut_away = len(tokenizer(prefix.strip())["input_ids"]) - 1 if prefix else 0
    all_states = states(folder, ids)
    spans, begin = [], cut_away
    for position, token in enumerate(ids):
        if token == tokenizer.sep_token_id:
            spans.append(list(range(begin, position)))
            begin = position + 1
    return unit_means(all_states, spans)


@MODELS
def test_authors_compat_equals_what_their_code_does(models: dict[str, Path], name: str) -> None:
    expected = as_the_authors(models[name], prompt_of(name), CHUNKS)
    found = encode(models[name], chunked("a", CHUNKS), pooling="authors-compat")
    np.testing.assert_allclose(found.vectors, expected, atol=TOLERANCE)
    strict = encode(models[name], chunked("a", CHUNKS))
    changed = np.abs(strict.vectors - found.vectors).max(axis=1) > 1e-6
    assert changed.tolist() == [not prompt_of(name), False, False, False], "CLS is pooled where no prefix is"


@MODELS
def test_sep_inclusive_equals_the_definition(models: dict[str, Path], name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models[name])
    ids = tokenizer(prompt_of(name) + tokenizer.sep_token.join(CHUNKS))["input_ids"]
    ends = [position for position, token in enumerate(ids) if token == tokenizer.sep_token_id]
    owned = [list(range(start, end)) for start, end in pairwise([0, *ends])]
    owned = [positions if not number else positions[1:] for number, positions in enumerate(owned)]
    owned[-1].append(ends[-1])
    found = encode(models[name], chunked("a", CHUNKS), pooling="inclusive")
    np.testing.assert_allclose(found.vectors, unit_means(states(models[name], ids), owned), atol=TOLERANCE)


def long_late_chunking(folder: Path, ids: list[int], size: int, overlap: int) -> torch.Tensor:
    """Jina's: windows of `size` with a stride of `size - overlap`; later ones lose their first `overlap` states."""
    kept: list[torch.Tensor] = []
    have, start = 0, 0
    while have < len(ids):
        window = states(folder, ids[start : start + size])
        kept.append(window if start == 0 else window[overlap:])
        have += len(kept[-1])
        start += size - overlap
    joined = torch.cat(kept)
    assert len(joined) == len(ids)
    return joined


@MODELS
@pytest.mark.parametrize("pooling", ["strict", "inclusive"])
@pytest.mark.parametrize(("size", "overlap"), [(40, 10), (64, 0), (33, 16), (128, None)])
def test_windows_of_tokens_equal_the_definition(
    models: dict[str, Path], name: str, pooling: str, size: int, overlap: int | None
) -> None:
    edges = tight(LONG, 9)
    ids, begins = whole_text(models[name], prompt_of(name), LONG)
    shared = 32 if overlap is None else overlap
    all_states = long_late_chunking(models[name], ids, size, shared)
    expected = unit_means(all_states, owners(begins, edges, inclusive=pooling == "inclusive"))
    options = {"windows": "token-window", "window_overlap": overlap, "max_tokens": size, "join": "raw"}
    found = encode(models[name], cut(LONG, edges), pooling=pooling, **options)
    np.testing.assert_allclose(found.vectors, expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["modernbert", "modernbert with prompts"])
@pytest.mark.parametrize("pooling", ["strict", "inclusive"])
def test_a_full_pass_reads_everything_at_once(models: dict[str, Path], name: str, pooling: str) -> None:
    edges = tight(LONG, 9)
    ids, begins = whole_text(models[name], prompt_of(name), LONG)
    assert len(ids) > 2 * 128, "beyond the model's positions"
    expected = unit_means(states(models[name], ids), owners(begins, edges, inclusive=pooling == "inclusive"))
    found = encode(models[name], cut(LONG, edges), pooling=pooling, windows="full", join="raw")
    np.testing.assert_allclose(found.vectors, expected, atol=TOLERANCE)
    assert set(found.windows) == {0}
    chunks = [LONG[start:end] for start, end in edges]
    joined = encode(models[name], chunked("a", chunks), pooling="authors-compat", windows="full")
    np.testing.assert_allclose(joined.vectors, as_the_authors(models[name], prompt_of(name), chunks), atol=TOLERANCE)


@MODELS
@pytest.mark.parametrize("join", ["sep", "raw"])
def test_windows_of_chunks_read_what_the_document_says(models: dict[str, Path], name: str, join: str) -> None:
    """A window is a stretch of the document, found in its ids; which stretch is asked of the code, and nothing else."""
    edges = tight(LONG, 24)
    document = cut(LONG, edges)
    encoder = load_encoder(
        str(models[name]),
        EncoderOptions(method="late", device="cpu", max_tokens=80, join=join),  # type: ignore[arg-type]
    )
    (result,) = encoder.encode_documents([document])
    assert isinstance(result, EncodedDocument)
    rows, _ = encoder._rows.make(document, encoder._frame(encoder.spec.document_prefix))
    content, spans = document_ids(models[name], prompt_of(name), document, join)
    tokenizer = AutoTokenizer.from_pretrained(models[name])
    opening = tokenizer(prompt_of(name).rstrip())["input_ids"][:-1]
    weaker: dict[int, dict[int, int]] = {}  # chunk -> window -> tokens of context on the weaker side
    assert len(rows) > 2
    for number, row in enumerate(rows):
        ids = row.ids.tolist()
        assert len(ids) <= 80
        assert ids[: len(opening)] == opening
        assert ids[-1] == tokenizer.sep_token_id
        inside = ids[len(opening) : -1]
        (start,) = [at for at in range(len(content)) if content[at : at + len(inside)] == inside]
        all_states = states(models[name], ids)
        for chunk, (first, last) in enumerate(spans):
            if start <= first and last <= start + len(inside):
                weaker.setdefault(chunk, {})[number] = min(first - start, start + len(inside) - last)
                if result.windows[chunk] == number:
                    shift = len(opening) - start
                    expected = unit_means(all_states, [list(range(first + shift, last + shift))])[0]
                    np.testing.assert_allclose(result.vectors[chunk], expected, atol=TOLERANCE)
    for chunk, window in enumerate(result.windows):  # one token is left for a separator that no window ends in
        assert weaker[chunk][window] >= max(weaker[chunk].values()) - 1


def document_ids(
    folder: Path, prompt: str, document: ChunkedDocument, join: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """What stands in windows between prefix and the closing separator, and where each chunk lies in it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    behind = len(tokenizer(prompt.rstrip())["input_ids"]) - 1
    if join == "raw":
        ids, begins = whole_text(folder, prompt, document.document.text)
        edges = [(chunk.start, chunk.end) for chunk in document.chunks]
        owned = owners(begins, edges, inclusive=False)
        return ids[behind:-1], [(positions[0] - behind, positions[-1] + 1 - behind) for positions in owned]
    ids = tokenizer(prompt + tokenizer.sep_token.join(chunk.text for chunk in document.chunks))["input_ids"]
    content = ids[behind:-1]
    lengths = [1]
    for token in content:
        lengths = [*lengths, 1] if token == tokenizer.sep_token_id else [*lengths[:-1], lengths[-1] + 1]
    ends = list(accumulate(lengths))
    return content, [(end - length, end - 1) for end, length in zip(ends, lengths, strict=True)]
