"""Tiny random models of every backbone and kind of tokenizer, saved as the libraries save them."""

from __future__ import annotations

import json
from collections.abc import Callable
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


def byte_level(head: str | None = "[CLS]", tail: str = "[SEP]") -> Tokenizer:
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


def _framed(tokenizer: Tokenizer, head: str | None, tail: str) -> Tokenizer:
    names = [token for token in (head, tail) if token is not None]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*([head] if head else []), "$A", tail]),
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
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **kept)


def save_backbone(folder: Path, config: Any, tokenizer: Any) -> Path:
    """A random transformer with its tokenizer, through save_pretrained."""
    torch.manual_seed(7)
    model: Any = transformers.AutoModel.from_config(config)
    for parameter in model.parameters():  # norms of one and biases of zero would hide a mistake
        parameter.data += torch.randn_like(parameter) * 0.05
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert(tokenizer: Any, **more: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )


def write_json(file: Path, values: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values), encoding="utf-8")


def added(tokenizer: Any, *tokens: str) -> Any:
    """The tokenizer with more tokens in its vocabulary, as PyLate adds its markers."""
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    return tokenizer


Builder = Callable[[Path], Path]
