"""Tiny random models of every backbone and kind of tokenizer, saved as the libraries save them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "Napoleon was born in Corsica, in the year 1769.",
    "He became emperor in 1804; and then, he died in exile!",
    "The agreement may be terminated early by either party.",
    "search query: which law governs the agreement? search document: the law of Delaware",
    "Ärger über 12 % Zinsen, naïve, 東京 and emoji 🙂",
]
HIDDEN = 32


def wordpiece(extra: tuple[str, ...] = ()) -> Tokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=[*specials, *extra], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _framed(tokenizer, "[CLS]", "[SEP]")


def byte_level(head: str | None = "[CLS]", tail: str | None = "[SEP]") -> Tokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _framed(tokenizer, head, tail)


def unigram() -> Tokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=220, special_tokens=specials, unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return _framed(tokenizer, "[CLS]", "[SEP]")


def word_level(words: Sequence[str]) -> Tokenizer:
    """Of these words, in this order behind those of `SPECIALS`, separated by blanks."""
    numbers = {word: number for number, word in enumerate([*SPECIALS.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _framed(tokenizer, "[CLS]", "[SEP]")


def _framed(tokenizer: Tokenizer, head: str | None, tail: str | None) -> Tokenizer:
    names = [token for token in (head, tail) if token is not None]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(part for part in (head, "$A", tail) if part is not None),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in names],
    )
    return tokenizer


SPECIALS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def fast(tokenizer: Tokenizer, **settings: Any) -> Any:
    kept: dict[str, Any] = {"model_max_length": 512, **SPECIALS, **settings}
    wrapper: Any = transformers.PreTrainedTokenizerFast
    return wrapper(tokenizer_object=tokenizer, **kept)


def save_backbone(folder: Path, config: Any, tokenizer: Any) -> Path:
    """A random transformer with its tokenizer, through save_pretrained."""
    torch.manual_seed(7)
    factory: Any = transformers.AutoModel
    model = factory.from_config(config)
    for parameter in model.parameters():  # norms of one and biases of zero would hide a mistake
        parameter.data += torch.randn_like(parameter) * 0.05
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert(tokenizer: Any, **more: Any) -> Any:
    return transformers.BertConfig(**_sizes(tokenizer), **more)


def _sizes(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "pad_token_id": tokenizer.pad_token_id,
    }


def backbone_config(kind: str, tokenizer: Any) -> Any:
    """A tiny configuration of one of the backbones that ctxindex reads."""
    sizes = _sizes(tokenizer)
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    if kind in ("roberta", "xlm-roberta", "mpnet"):
        names = {"roberta": "RobertaConfig", "xlm-roberta": "XLMRobertaConfig", "mpnet": "MPNetConfig"}
        factory: Any = getattr(transformers, names[kind])
        return factory(**{**sizes, "max_position_embeddings": 130, "pad_token_id": 1}, **ends)
    if kind == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=sizes["vocab_size"],
            dim=HIDDEN,
            n_layers=2,
            n_heads=2,
            hidden_dim=48,
            max_position_embeddings=128,
        )
    if kind == "modernbert":
        tokens = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
        # Windows shorter than the texts of the tests, so that local attention plays its part.
        return transformers.ModernBertConfig(**sizes, **ends, **tokens, local_attention=16)
    if kind == "nomic_bert":
        return transformers.NomicBertConfig(**sizes)
    if kind == "eurobert":
        return transformers.EuroBertConfig(**sizes, **ends, num_key_value_heads=1)
    if kind.startswith("qwen3"):
        more: dict[str, Any] = {} if kind == "qwen3-causal" else {"is_causal": False}
        return transformers.Qwen3Config(**sizes, **ends, **more, num_key_value_heads=1, head_dim=16)
    return bert(tokenizer)


def tokenizer_for(kind: str) -> Any:
    """The kind of tokenizer that a backbone usually comes with."""
    if kind in ("roberta", "modernbert", "eurobert"):
        return fast(byte_level())
    if kind.startswith("qwen3"):
        return fast(byte_level(head=None, tail=None if kind == "qwen3-open" else "[SEP]"))
    return fast(unigram()) if kind == "xlm-roberta" else fast(wordpiece())


def write_json(file: Path, values: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values), encoding="utf-8")


def added(tokenizer: Any, *tokens: str) -> Any:
    """The tokenizer with more tokens in its vocabulary, as PyLate adds its markers."""
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    return tokenizer


def save_sentence_transformer(folder: Path, kind: str = "bert", pooling: str = "mean", **more: Any) -> Path:
    """A model of one backbone, saved by sentence-transformers itself.

    `more` may hold `behind` and `before`, the modules after and before the pooling, `include_prompt`, and what
    SentenceTransformer takes.
    """
    tokenizer = tokenizer_for(kind)
    if kind in ("roberta", "xlm-roberta", "mpnet"):  # their padding has the id 1 in every model, and here [UNK] has it
        tokenizer.pad_token = "[UNK]"
    backbone = save_backbone(folder.parent / f"{folder.name}-backbone", backbone_config(kind, tokenizer), tokenizer)
    return save_modules(folder, backbone, pooling, **more)


def save_modules(folder: Path, backbone: Path, pooling: str = "mean", **more: Any) -> Path:
    """A model of the transformer in the folder `backbone`; `more` as above, with `width`, that of what is pooled."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    before, behind = more.pop("before", []), more.pop("behind", [])
    pool = Pooling(more.pop("width", HIDDEN), pooling, include_prompt=more.pop("include_prompt", True))
    modules = [Transformer(str(backbone)), *before, pool, *behind]
    SentenceTransformer(modules=modules, device="cpu", **more).save(str(folder))
    return folder
