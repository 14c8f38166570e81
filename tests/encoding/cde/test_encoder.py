"""Native CDE against its definition: stock transformers, context and text in one sequence, a mask of four dimensions.

Nothing of ours is in the oracle but the ids of the tokenizer and the tensors in cde.safetensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.attention.context import AttentionContext
from ctxindex.encoding.attention.packed import NAME, register
from ctxindex.encoding.backbone import load_transformer
from ctxindex.encoding.backbones import read_backbone
from ctxindex.encoding.cde.corpus_context import CorpusContext
from ctxindex.encoding.cde.encoder import CdeEncoder
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.model import ContextParts, layer_numbers, read_layers
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.encoding.token_states import TokenStates
from ctxindex.types import EncodedDocument
from tests.conftest import REPOSITORY
from tests.encoding.stand_in import chunked
from tests.encoding.tiny import TEXTS, save_sentence_transformer

if TYPE_CHECKING:
    from ctxindex.types import ChunkedDocument, FloatArray

KINDS = ["bert", "roberta", "distilbert", "nomic_bert", "modernbert", "eurobert", "qwen3", "mpnet"]
QUERY = "Which law governs the agreement, and who became emperor in exile? The law of Delaware, or Corsica."
DOCUMENT = chunked("a", [*TEXTS, "He died.", "The agreement may be terminated early; and then?"])
STRONG = 1.0
"""A bias with which a context takes a good part of the attention."""


def rewrite(folder: Path, **changed: torch.Tensor) -> Path:
    """The model with some of its tensors changed."""
    tensors = load_file(folder / "cde.safetensors")
    assert changed.keys() <= tensors.keys()
    save_file(tensors | changed, folder / "cde.safetensors")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """CDE models of every kind, with a strong bias, another in each layer, and context tokens far from each other."""
    place = tmp_path_factory.mktemp("models")
    found = {}
    for kind in KINDS:
        base = save_sentence_transformer(place / f"{kind}-base", kind)
        folder = make_native_cde(str(base), place / kind)
        found[kind] = rewrite(folder, bias=torch.tensor([STRONG, STRONG - 0.7]))
        mean = torch.from_numpy(opened(folder).encode_context(TEXTS).vectors.mean(axis=0))
        weight = 5 * torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
        rewrite(folder, **{"projection.weight": weight, "projection.bias": -weight @ mean})
    return found


def opened(folder: Path, **options: Any) -> CdeEncoder:
    encoder = load_encoder(str(folder), EncoderOptions(device="cpu", dtype="float32", **options))
    assert isinstance(encoder, CdeEncoder)
    return encoder


def vectors(encoder: CdeEncoder | Any, document: ChunkedDocument = DOCUMENT) -> FloatArray:
    (encoded,) = encoder.encode_documents([document])
    assert isinstance(encoded, EncodedDocument), encoded
    return encoded.vectors


def ids_of(encoder: CdeEncoder, text: str) -> list[int]:
    (row,) = encoder.query_rows([text])
    return list(map(int, row.ids))


@dataclass
class Oracle:
    """The two stages as stock models."""

    first: Any
    second: Any
    tensors: dict[str, torch.Tensor]
    start: int
    window: int | None

    @classmethod
    def of(cls, folder: Path, dtype: torch.dtype = torch.float64) -> Oracle:
        def model(place: Path) -> Any:
            return AutoModel.from_pretrained(place, dtype=dtype, attn_implementation="eager").eval()

        second = model(folder)
        kind = second.config.model_type
        start = second.config.pad_token_id + 1 if kind in ("roberta", "mpnet") else 0
        window = second.config.sliding_window if kind == "modernbert" else None
        tensors = {name: value.to(dtype) for name, value in load_file(folder / "cde.safetensors").items()}
        return cls(model(folder / "first_stage"), second, tensors, start, window)

    def mean_state(self, ids: list[int]) -> torch.Tensor:
        states: torch.Tensor = self.first(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return states.mean(dim=0)

    def states(self, texts: list[list[int]], ids: list[int], *, in_order: bool = False) -> torch.Tensor:
        """The states of a text's tokens, (tokens, hidden); `in_order` gives every context token a position."""
        given = torch.stack([self.mean_state(text) for text in texts])
        tokens = given @ self.tensors["projection.weight"].T + self.tensors["projection.bias"]
        words = self.second.get_input_embeddings()(torch.tensor(ids))
        size, total = len(tokens), len(tokens) + len(ids)
        positions = torch.cat([torch.zeros(size, dtype=torch.long), torch.arange(len(ids))]) + self.start
        if in_order:
            positions = torch.arange(total) + self.start
        masks = [self._masks(size, total, bias) for bias in self.tensors["bias"]]
        hooks = self._put(masks, size)
        inputs = {"inputs_embeds": torch.cat([tokens, words])[None], "position_ids": positions[None]}
        first = {"full_attention": masks[0][0], "sliding_attention": masks[0][1]} if self.window else masks[0][0]
        states: torch.Tensor = self.second(**inputs, attention_mask=first).last_hidden_state[0, size:]
        for hook in hooks:
            hook.remove()
        return states

    def _masks(self, size: int, total: int, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is added to scores, (1, 1, total, total), in global layers and in local ones."""
        seen = torch.zeros(total, total, dtype=bias.dtype)
        seen[:size, size:] = -torch.inf
        seen = seen.clone()
        seen[size:, :size] = bias - math.log(size)
        near = torch.arange(total)
        far = (near[:, None] - near).abs() > (self.window or total)
        far[:size] = far[:, :size] = False
        return seen[None, None], seen.masked_fill(far, -torch.inf)[None, None]

    def _put(self, masks: list[tuple[torch.Tensor, torch.Tensor]], size: int) -> list[Any]:
        """Stock models have one mask for all layers: put that of each in its place."""
        paths = {
            "distilbert": "transformer.layer",
            **dict.fromkeys(("modernbert", "nomic_bert", "eurobert", "qwen3"), "layers"),
        }
        layers = self.second.get_submodule(paths.get(self.second.config.model_type, "encoder.layer"))
        inside = [dict(layer.named_modules()) for layer in layers]
        attentions = [next(modules[name] for name in _ATTENTIONS if name in modules) for modules in inside]

        def hook(number: int) -> Any:
            def put(module: Any, args: Any, kwargs: Any) -> Any:
                if self.second.config.model_type == "mpnet":  # which has a bias by distance: none to the context
                    apart, away = kwargs["position_bias"], torch.arange(masks[number][0].shape[-1]) < size
                    own = {"position_bias": apart.masked_fill(away[:, None] | away, 0)}
                    return (args[0], masks[number][0]), {**kwargs, **own}
                local = getattr(module, "sliding_window", None) is not None
                return args, {**kwargs, "attention_mask": masks[number][int(local)]}

            return put

        return [one.register_forward_pre_hook(hook(n), with_kwargs=True) for n, one in enumerate(attentions)]

    def vector(self, texts: list[list[int]], ids: list[int], **more: Any) -> torch.Tensor:
        return torch.nn.functional.normalize(self.states(texts, ids, **more).mean(dim=0), dim=0)


_ATTENTIONS = ("attention.self", "attention", "self_attn", "attn")


@pytest.mark.parametrize("kind", KINDS)
def test_reading_once_is_reading_all_in_one_sequence(kind: str, folders: dict[str, Path]) -> None:
    encoder = opened(folders[kind])
    context = encoder.encode_context(TEXTS)
    found = encoder.with_context(context).encode_queries([QUERY])[0]
    oracle = Oracle.of(folders[kind])
    texts, ids = [ids_of(encoder, text) for text in TEXTS], ids_of(encoder, QUERY)
    with torch.inference_mode():
        given = torch.stack([oracle.mean_state(text) for text in texts])
        assert np.abs(context.vectors - given.numpy()).max() < 1e-5
        assert np.abs(found - oracle.vector(texts, ids).numpy()).max() < 1e-5
        if kind == "bert":  # positions of their own would make a difference
            assert np.abs(found - oracle.vector(texts, ids, in_order=True).numpy()).max() > 1e-3
    assert np.abs(found - encoder.encode_queries([QUERY])[0]).max() > 1e-3  # the null context is another one


@pytest.mark.parametrize("kind", KINDS)
def test_neither_order_nor_repetition_of_a_context_means_anything(kind: str, folders: dict[str, Path]) -> None:
    encoder = opened(folders[kind])
    expected = vectors(encoder.with_context(encoder.encode_context(TEXTS)))
    for same in (TEXTS[::-1], [*TEXTS, *TEXTS[::-1], *TEXTS]):
        found = vectors(encoder.with_context(encoder.encode_context(same)))
        assert np.abs(found - expected).max() < 2e-6
    for other in (TEXTS[:1], [*TEXTS, TEXTS[0]]):
        found = vectors(encoder.with_context(encoder.encode_context(other)))
        assert np.abs(found - expected).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_another_context_is_another_vector_and_the_same_one_the_same(kind: str, folders: dict[str, Path]) -> None:
    encoder = opened(folders[kind])
    one, same, other = (
        vectors(encoder.with_context(encoder.encode_context(texts))) for texts in (TEXTS[:3], TEXTS[:3], TEXTS[3:])
    )
    assert np.array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_vectors_do_not_depend_on_what_shares_a_batch(kind: str, folders: dict[str, Path]) -> None:
    documents = [DOCUMENT, chunked("b", TEXTS[:2]), chunked("c", ["He died."])]
    found = []
    for tokens, order in ((4096, 1), (16, -1)):
        encoder = opened(folders[kind], batch_tokens=tokens)
        encoder = encoder.with_context(encoder.encode_context(TEXTS))
        done = {one.document.doc_id: one for one in encoder.encode_documents(documents[::order])}  # type: ignore[union-attr]
        found.append(np.concatenate([done[name].vectors for name in "abc"]))  # type: ignore[union-attr]
    assert np.abs(found[0] - found[1]).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_share_for_the_context_it_is_the_base(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    base = folders[kind].parent / f"{kind}-base"
    folder = make_native_cde(str(base), tmp_path / "cde", NativeCde(output_head=True, share_stages=True))
    rewrite(folder, bias=torch.full((2,), -torch.inf))
    encoder = opened(folder, anchor=8, blend=0.3)
    late = load_encoder(str(base), EncoderOptions("late", device="cpu", dtype="float32", anchor=8, blend=0.3))
    for each in (encoder, encoder.with_context(encoder.encode_context(TEXTS))):
        assert np.abs(vectors(each) - vectors(late)).max() < 1e-5
        assert np.abs(each.encode_queries([QUERY]) - np.asarray(late.encode_queries([QUERY]))).max() < 1e-5


def test_a_head_that_has_learnt_something_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    base = str(folders["bert"].parent / "bert-base")
    folder = make_native_cde(base, tmp_path / "cde", NativeCde(output_head=True))
    before = opened(folder).encode_queries([QUERY])
    rewrite(folder, **{"head.2.weight": torch.eye(32)})
    encoder = opened(folder)
    after = encoder.encode_queries([QUERY])
    pooled = torch.from_numpy(before[0] * 3)  # unit vectors do not say how long the pooled state was
    assert np.abs(after - before).max() > 1e-3
    tensors = load_file(folder / "cde.safetensors")
    parts = ContextParts.of(tensors)
    inner = torch.nn.functional.gelu(tensors["head.0.weight"] @ pooled + tensors["head.0.bias"])
    assert torch.allclose(parts.finish(pooled[None])[0], pooled + inner)


def test_without_a_corpus_it_is_the_null_context(folders: dict[str, Path]) -> None:
    encoder = opened(folders["bert"])
    null = encoder.null_context()
    assert null.is_null
    assert null.layers is not None
    assert null.layers.shape == (2, 2, 2, 1, 16)
    expected = vectors(encoder)
    assert encoder.context is None
    for context in (None, null):
        again = encoder.with_context(encoder.encode_context(TEXTS)).with_context(context)
        assert again.spec == encoder.spec
        assert np.array_equal(vectors(again), expected)
    assert encoder.spec.context == "null"


def test_windows_of_one_chunk_read_it_as_a_text_of_its_own(folders: dict[str, Path]) -> None:
    encoder = opened(folders["bert"], windows="chunk")
    encoder = encoder.with_context(encoder.encode_context(TEXTS))
    assert np.abs(vectors(encoder) - encoder.encode_queries([one.text for one in DOCUMENT.chunks])).max() < 1e-5
    together = opened(folders["bert"])
    together = together.with_context(together.encode_context(TEXTS))
    assert np.abs(vectors(encoder) - vectors(together)).max() > 1e-2


def test_one_chunk_that_is_the_document_is_its_plain_vector(folders: dict[str, Path]) -> None:
    encoder = opened(folders["bert"], pooling="inclusive")
    encoder = encoder.with_context(encoder.encode_context(TEXTS))
    assert np.abs(vectors(encoder, chunked("a", [QUERY])) - encoder.encode_queries([QUERY])).max() < 1e-5


def test_chunks_are_the_means_of_their_own_tokens(folders: dict[str, Path]) -> None:
    """In one window, [CLS] c1 [SEP] c2 [SEP] …; the context is never pooled."""
    encoder = opened(folders["modernbert"])
    oracle = Oracle.of(folders["modernbert"])
    (row,) = encoder.document_rows(DOCUMENT)
    texts = [ids_of(encoder, text) for text in TEXTS]
    with torch.inference_mode():
        states = oracle.states(texts, list(map(int, row.ids))).numpy()
    found = vectors(encoder.with_context(encoder.encode_context(TEXTS)))
    start = 1
    for vector, chunk in zip(found, DOCUMENT.chunks, strict=True):
        end = start + encoder.tokenizer.count([chunk.text])[0]
        mean = states[start:end].mean(axis=0)
        assert np.abs(vector - mean / np.linalg.norm(mean)).max() < 1e-5
        start = end + 1


@pytest.mark.parametrize("kind", ["bert", "nomic_bert", "modernbert", "eurobert", "qwen3", "mpnet"])
def test_the_gradient_is_that_of_the_plain_formula(kind: str, folders: dict[str, Path]) -> None:
    """Through the context's keys and values into the projection and the second stage, and into the biases."""
    folder = folders[kind]
    oracle, facts = Oracle.of(folder), read_backbone(folder)
    register()
    model = load_transformer(folder, torch.float64, False, NAME if facts.packable else None)
    tensors = {name: value.double().requires_grad_() for name, value in load_file(folder / "cde.safetensors").items()}
    parts, numbers = ContextParts.of(tensors), layer_numbers(model, facts)
    encoder = opened(folder)
    texts, ids = [ids_of(encoder, text) for text in TEXTS], ids_of(encoder, QUERY)
    with torch.no_grad():
        given = torch.stack([oracle.mean_state(text) for text in texts])
    layers = read_layers(model, numbers, facts, parts.tokens(given))
    read = TokenStates(model, facts, 128, 0)
    row = np.array(ids, dtype=np.int32)
    context = AttentionContext(numbers, layers, parts.bias)
    states, starts = read([row, row[:7]], torch.device("cpu"), context=context)
    pull = torch.linspace(-1, 1, len(ids) * 32, dtype=torch.float64).view(len(ids), 32)
    torch.autograd.backward((states[starts[0] : starts[0] + len(ids)] * pull).sum())

    for tensor in oracle.tensors.values():
        tensor.requires_grad_()
    torch.autograd.backward((oracle.states(texts, ids) * pull).sum())
    allowed = 1e-6 if kind in ("modernbert", "eurobert", "qwen3") else 1e-9  # whose rotation is in float32
    for name in ("projection.weight", "projection.bias", "bias"):
        mine, right = tensors[name].grad, oracle.tensors[name].grad
        assert mine is not None
        assert right is not None
        assert float(right.abs().max()) > 0
        assert (mine - right).abs().max() < allowed * max(1, float(right.abs().max())), name
    expected = dict(oracle.second.named_parameters())
    for name, parameter in model.named_parameters():
        right = expected[name].grad
        if parameter.grad is None or right is None:
            assert parameter.grad is right, name
        else:
            assert (parameter.grad - right).abs().max() < allowed * max(1, float(right.abs().max())), name


def test_untrained_minilm_gives_its_own_vectors(minilm_cde: Path) -> None:
    text = next((REPOSITORY / "recipes" / "data" / "contracts").glob("*.txt")).read_text(encoding="utf-8")
    words = text.split()
    pieces = [" ".join(words[start : start + 50]) for start in range(0, 2000, 50)]
    document, sample = chunked("a", pieces[:8]), pieces[8:]
    options = EncoderOptions("late", device="cpu", dtype="float32", max_tokens=256)
    late = vectors(load_encoder("minilm", options), document)
    encoder = opened(minilm_cde, max_tokens=256)
    context = encoder.encode_context(sample)
    for each in (encoder, encoder.with_context(context)):
        cosines = (vectors(each, document) * late).sum(axis=1)
        assert cosines.mean() > 0.999
        assert cosines.min() < 1 - 1e-6  # and yet it is read
    assert encoder.drift(context, sample) == 0
    assert encoder.drift(context, pieces[:8]) > 0


@pytest.fixture(scope="module")
def minilm_cde(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_native_cde("minilm", tmp_path_factory.mktemp("minilm") / "cde")


def test_a_context_from_disk_gives_the_same_bits(folders: dict[str, Path], tmp_path: Path) -> None:
    encoder = opened(folders["bert"])
    context = encoder.encode_context(TEXTS)
    context.save(tmp_path)
    again = opened(folders["bert"])
    loaded = again.with_context(CorpusContext.load(tmp_path))
    assert np.array_equal(vectors(loaded), vectors(encoder.with_context(context)))
    assert loaded.spec == encoder.with_context(context).spec
