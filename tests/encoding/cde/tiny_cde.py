"""Tiny checkpoints laid out like the published CDE models, and what they should give, computed without the loader.

Names and shapes of the tensors are written out from a description of the authors' classes. The oracle reads the file
itself and computes in float64, one text at a time: NomicBERT in a few lines of torch, ModernBERT with the stock class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional

from tests.encoding.tiny import HIDDEN, byte_level, fast, wordpiece, write_json

Version = Literal["v1", "v2"]

CONTEXT = 5
SOFT = 8
HEADS = 2
INNER = 48
LAYERS = {"v1": 2, "v2": 4}
WINDOW = 16

FIRST, SECOND = "first_stage_model", "second_stage_model"


def save_published(folder: Path, version: Version, *, null: bool = False, **more: Any) -> Path:
    """A random checkpoint of five context texts; `more` goes into config.json."""
    torch.manual_seed(11)
    tokenizer = fast(wordpiece() if version == "v1" else byte_level())
    vocabulary = -(-len(tokenizer) // 64) * 64
    embedder = folder / "embedder"
    write_json(embedder / "config.json", _nomic(vocabulary) if version == "v1" else _modern(vocabulary))
    # The hub has v1's tokenizer beside its weights, and v2's nowhere but with ModernBERT.
    tokenizer.save_pretrained(folder if version == "v1" else embedder)
    limits = {FIRST: more.get("limit_layers_first_stage"), SECOND: more.get("limit_layers")}
    tensors: dict[str, torch.Tensor] = {}
    for stage, inner in ((FIRST, "embedder"), (SECOND, "backbone")):
        layers = limits[stage] or LAYERS[version]
        named = _nomic_tensors(vocabulary, layers) if version == "v1" else _modern_tensors(vocabulary, layers)
        tensors |= {f"{stage}.{inner}.{name}": tensor for name, tensor in named.items()}
    tensors |= _two_layers(f"{FIRST}.mlp", HIDDEN) | _two_layers(f"{SECOND}.prompt_projection", HIDDEN * SOFT)
    tensors |= _two_layers(f"{SECOND}.output_projection", HIDDEN)
    if null:
        tensors[f"{SECOND}.sequence_dropout_null_embedding"] = torch.randn(HIDDEN)
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", {**_config(version), **more})
    write_json(folder / "sentence_bert_config.json", {})
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers_impl.Transformer"}
    write_json(folder / "modules.json", [{**module, "kwargs": ["dataset_embeddings"]}])
    prompts = {"query": "search_query: ", "document": "search_document: "}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    return folder


def _config(version: Version) -> dict[str, Any]:
    name = {"v1": "DatasetTransformer", "v2": "ContextualDocumentEmbeddingTransformer"}[version]
    return {
        "architectures": [name],
        "auto_map": {"AutoModel": f"model.{name}"},
        "architecture": "transductive",
        "embedder": "embedder",
        "dataset_backbone": None,
        "transductive_corpus_size": CONTEXT,
        "transductive_tokens_per_document": 1,
        "transductive_sequence_dropout_prob": 0.0,
        "transductive_tie_token_embeddings": False,
        "disable_transductive_rotary_embedding": True,
        "pool_ignore_contextual_tokens": True,
        "pool_ignore_instruction_tokens": version == "v2",
        "limit_layers": None,
        "limit_layers_first_stage": None,
        "max_seq_length": 64,
        "logit_scale": 50.0,
        "embedding_output_dim": None,
    }


def _nomic(vocabulary: int) -> dict[str, Any]:
    """A configuration of the time before transformers had a class of its own."""
    return {
        "model_type": "nomic_bert",
        "activation_function": "swiglu",
        "vocab_size": vocabulary,
        "n_embd": HIDDEN,
        "n_layer": LAYERS["v1"],
        "n_head": HEADS,
        "n_inner": INNER,
        "n_positions": 256,
        "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "use_rms_norm": None,
        "type_vocab_size": 2,
    }


def _modern(vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "modernbert",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS["v2"],
        "num_attention_heads": HEADS,
        "max_position_embeddings": 256,
        "local_attention": WINDOW,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "pad_token_id": 0,
    }


def _nomic_tensors(vocabulary: int, layers: int) -> dict[str, torch.Tensor]:
    tensors = {
        "embeddings.word_embeddings.weight": torch.randn(vocabulary, HIDDEN),
        "embeddings.token_type_embeddings.weight": torch.randn(2, HIDDEN),
        **_norm("emb_ln"),
    }
    for number in range(layers):
        layer = f"encoder.layers.{number}"
        tensors |= {
            f"{layer}.attn.Wqkv.weight": _matrix(3 * HIDDEN, HIDDEN),
            f"{layer}.attn.out_proj.weight": _matrix(HIDDEN, HIDDEN),
            f"{layer}.mlp.fc11.weight": _matrix(INNER, HIDDEN),
            f"{layer}.mlp.fc12.weight": _matrix(INNER, HIDDEN),
            f"{layer}.mlp.fc2.weight": _matrix(HIDDEN, INNER),
            **_norm(f"{layer}.norm1"),
            **_norm(f"{layer}.norm2"),
        }
    return tensors


def _modern_tensors(vocabulary: int, layers: int) -> dict[str, torch.Tensor]:
    tensors = {
        "embeddings.tok_embeddings.weight": torch.randn(vocabulary, HIDDEN),
        "embeddings.norm.weight": 1 + 0.3 * torch.randn(HIDDEN),
        "final_norm.weight": 1 + 0.3 * torch.randn(HIDDEN),
    }
    for number in range(layers):
        layer = f"layers.{number}"
        tensors |= {
            f"{layer}.attn.Wqkv.weight": _matrix(3 * HIDDEN, HIDDEN),
            f"{layer}.attn.Wo.weight": _matrix(HIDDEN, HIDDEN),
            f"{layer}.mlp.Wi.weight": _matrix(2 * INNER, HIDDEN),
            f"{layer}.mlp.Wo.weight": _matrix(HIDDEN, INNER),
            f"{layer}.mlp_norm.weight": 1 + 0.3 * torch.randn(HIDDEN),
        }
        if number:
            tensors[f"{layer}.attn_norm.weight"] = 1 + 0.3 * torch.randn(HIDDEN)
    return tensors


def _matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns) / math.sqrt(columns)


def _norm(name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": 1 + 0.3 * torch.randn(HIDDEN), f"{name}.bias": 0.3 * torch.randn(HIDDEN)}


def _two_layers(name: str, out: int) -> dict[str, torch.Tensor]:
    return {
        f"{name}.0.weight": _matrix(HIDDEN, HIDDEN),
        f"{name}.0.bias": 0.3 * torch.randn(HIDDEN),
        f"{name}.2.weight": _matrix(out, HIDDEN),
        f"{name}.2.bias": 0.3 * torch.randn(out),
    }


class Oracle:
    """What the authors' code computes, as far as it is described, in float64 and one text at a time."""

    def __init__(self, folder: Path, version: Version) -> None:
        self.version = version
        self.tensors = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
        place = folder if version == "v1" else folder / "embedder"
        self.tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        self.stock: dict[str, Any] = {}

    def context(self, texts: Sequence[str]) -> torch.Tensor:
        """(texts, hidden)"""
        rows = []
        for text in texts:
            ids = self.ids("search_document: " + text)
            positions = torch.arange(len(ids))
            if self.version == "v1":
                states = self._nomic(FIRST, "embedder", self._words(FIRST, "embedder", ids, types=1), positions)
            else:
                states = self._modern(FIRST, "embedder")(input_ids=ids[None]).last_hidden_state[0]
            rows.append(self._layers(f"{FIRST}.mlp", states.mean(dim=0), functional.gelu))
        return torch.stack(rows)

    def vector(
        self,
        context: torch.Tensor,
        text: str,
        *,
        types: tuple[int, int] = (1, 2),
        skip: int = 0,
        residual: bool = False,
        span: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """(hidden,), unit length: of `text` with its prefix; `types` is how often context and text get token type 0."""
        ids = self.ids(text)
        soft = self._layers(f"{SECOND}.prompt_projection", torch.ones(HIDDEN).double(), torch.relu).view(SOFT, HIDDEN)
        lead = torch.cat([context.double(), soft])
        if self.version == "v1":
            kind = self.tensors[f"{SECOND}.backbone.embeddings.token_type_embeddings.weight"][0]
            rows = torch.cat([lead + types[0] * kind, self._words(SECOND, "backbone", ids, types=types[1])])
            positions = torch.cat([torch.zeros(len(context)), torch.arange(len(context), len(rows))])
            states = self._nomic(SECOND, "backbone", rows, positions)
        else:
            model = self._modern(SECOND, "backbone")
            rows = torch.cat([lead, model.embeddings(input_ids=ids[None])[0]])
            states = model(inputs_embeds=rows[None]).last_hidden_state[0]
        start, end = span or (skip, len(ids))
        pooled = states[len(lead) :][start:end].mean(dim=0)
        made = self._layers(f"{SECOND}.output_projection", pooled, torch.relu)
        return functional.normalize(made + pooled if residual else made, dim=0)

    def ids(self, text: str) -> torch.Tensor:
        return torch.tensor(self.tokenizer.encode(text).ids)

    def _words(self, stage: str, inner: str, ids: torch.Tensor, types: int) -> torch.Tensor:
        table = self.tensors[f"{stage}.{inner}.embeddings.word_embeddings.weight"]
        return table[ids] + types * self.tensors[f"{stage}.{inner}.embeddings.token_type_embeddings.weight"][0]

    def _layers(self, name: str, values: torch.Tensor, activation: Any) -> torch.Tensor:
        held = self.tensors
        inner: torch.Tensor = activation(values @ held[f"{name}.0.weight"].T + held[f"{name}.0.bias"])
        return inner @ held[f"{name}.2.weight"].T + held[f"{name}.2.bias"]

    def _modern(self, stage: str, inner: str) -> Any:
        if stage not in self.stock:
            import transformers

            prefix = f"{stage}.{inner}."
            held = {name.removeprefix(prefix): each for name, each in self.tensors.items() if name.startswith(prefix)}
            sizes = {**_modern(len(held["embeddings.tok_embeddings.weight"]))}
            sizes["num_hidden_layers"] = sum(name.endswith("attn.Wo.weight") for name in held)
            config: Any = transformers.ModernBertConfig(**sizes)
            factory: Any = transformers.ModernBertModel
            model = factory(config)
            model.load_state_dict(held)
            self.stock[stage] = model.double().eval().requires_grad_(False)
        return self.stock[stage]

    def _nomic(self, stage: str, inner: str, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Post-norm layers over the embedded rows (length, hidden), rotated by `positions`."""
        held, prefix = self.tensors, f"{stage}.{inner}."
        states = self._normed(prefix + "emb_ln", rows)
        size = HIDDEN // HEADS
        angles = positions.double()[:, None] * 1000.0 ** -(torch.arange(0, size, 2).double() / size)
        number = 0
        while (layer := f"{prefix}encoder.layers.{number}") + ".attn.Wqkv.weight" in held:
            query, key, value = (states @ held[f"{layer}.attn.Wqkv.weight"].T).view(-1, 3, HEADS, size).unbind(1)
            query, key = _rotated(query, angles), _rotated(key, angles)
            scores = torch.einsum("qhd,khd->hqk", query, key) * size**-0.5
            mixed = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), value).reshape(-1, HIDDEN)
            states = self._normed(f"{layer}.norm1", states + mixed @ held[f"{layer}.attn.out_proj.weight"].T)
            gate = functional.silu(states @ held[f"{layer}.mlp.fc12.weight"].T)
            wide = states @ held[f"{layer}.mlp.fc11.weight"].T * gate
            states = self._normed(f"{layer}.norm2", states + wide @ held[f"{layer}.mlp.fc2.weight"].T)
            number += 1
        return states

    def _normed(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(
            rows, (HIDDEN,), self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], 1e-12
        )


def _rotated(values: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """(length, heads, size) with the pairs (i, i + size / 2) turned as complex numbers."""
    left, right = values.chunk(2, dim=-1)
    turned = torch.complex(left, right) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)
