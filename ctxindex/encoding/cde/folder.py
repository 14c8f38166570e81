"""Folders of native CDE models: a base model becomes one that can be trained, and what was trained is written.

An untrained one gives nearly the vectors of its base, with any context: the bias of context scores begins low, and the
output head gives zeros. Context tokens take the place of word embeddings, so the projection begins as the identity,
scaled so that the mean vector of the first stage comes out as long as a word embedding; where the stages differ in
size, as a random matrix with orthonormal rows or columns. The null vector begins as random as a word.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctxindex.encoding.backbone import load_transformer
from ctxindex.encoding.cde.encoder import FirstStage
from ctxindex.encoding.cde.model import ContextParts
from ctxindex.encoding.cde.settings import FIRST_STAGE, SETTINGS, TENSORS, NativeCde, require_second_stage
from ctxindex.encoding.checkpoint import Checkpoint, open_checkpoint, read_checkpoint
from ctxindex.encoding.fitness import require_base
from ctxindex.encoding.known_models import MINILM
from ctxindex.encoding.model_files import OTHER_WEIGHTS
from ctxindex.encoding.options import EncoderOptions
from ctxindex.encoding.trained import write_settings
from ctxindex.errors import ModelError, UsageError
from ctxindex.metering import Meter

if TYPE_CHECKING:
    import torch

_SEED = 0
_LEFT = {".git", ".cache", "onnx", "openvino", "training", FIRST_STAGE, SETTINGS, TENSORS, "README.md"}
"""Not copied: what no model is read from, and the card, which speaks of another model."""

_TEXTS = (
    "The agreement may be terminated by either party with notice of thirty days.",
    "Patients were given a dose of the drug twice a day, and followed for a year.",
    "Rivers in the north of the country freeze in winter, and ships wait for spring.",
    "To install the package, run the command below and start the service again.",
)
"""Of no importance: their vectors give the length that vectors of the first stage have."""


def make_native_cde(base: str, out: Path, settings: NativeCde | None = None) -> Path:
    """Make an untrained CDE model in the new folder `out`, with the model `base` as its second stage; gives the folder.

    Without `share_stages` the first stage is the model called `first_stage`, or the base. It is copied into the folder,
    as what a name stands for may change: a model on the hub with its next revision, `minilm-insent` with the next
    release. Only `minilm`, whose weights are the same for good, is named in its place.

    Raises:
        ModelError: a model cannot be found or used, or the folder cannot be written.
        UsageError: there is something in `out` already.
    """
    settings = settings or NativeCde()
    checkpoint = open_checkpoint(base)
    if checkpoint.cde is not None:
        raise ModelError(f"{checkpoint.folder} is a CDE model already: open it as it is")
    require_second_stage(checkpoint.facts, checkpoint.folder)
    require_base(checkpoint)
    first = checkpoint
    if settings.first_stage and not settings.share_stages:
        first = open_checkpoint(settings.first_stage)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already: choose a new folder")
    settings = with_first_stage(settings, first)
    parts = initial_parts(checkpoint, first, settings)
    existed = out.exists()
    try:
        _copy(checkpoint.folder, out)
        if not settings.share_stages and not settings.first_stage:
            _copy(first.folder, out / FIRST_STAGE)
        if checkpoint.trained is not None:  # what it says of late chunking holds here too
            write_settings(out, replace(checkpoint.trained, method="cde"))
        return save_cde(out, parts, settings)
    except BaseException as error:
        # Half a model would be taken for one, and keep the next attempt from this folder, which was new or empty.
        shutil.rmtree(out, ignore_errors=True)
        if existed:
            out.mkdir(exist_ok=True)
        if isinstance(error, OSError):
            raise ModelError(f"cannot write {out}: {error}") from None
        raise


def save_cde(folder: Path, parts: ContextParts, settings: NativeCde) -> Path:
    """Write settings and parts into `folder`, which holds the second stage; what was there of them is replaced.

    The first stage has to be there too, in `first_stage`, unless the settings name it or it is shared.

    Raises:
        ModelError: the folder cannot be written, or what is in it then is no CDE model.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in parts.tensors().items()}
    try:
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
        (folder / SETTINGS).write_text(settings.to_json(), encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error}") from None
    _ = read_checkpoint(folder, str(folder)).first_stage
    return folder


def initial_parts(second: Checkpoint, first: Checkpoint, settings: NativeCde) -> ContextParts:
    """The parts of an untrained model with these two stages; the same ones each time.

    Raises:
        ModelError: a stage cannot be loaded.
    """
    import torch

    model = load_transformer(second.backbone, torch.float32, remote_code=False, attention=None)
    words = model.get_input_embeddings().weight.detach()
    length = float(words.norm(dim=1).mean())
    stage = FirstStage.of(first, EncoderOptions(device="cpu", dtype="float32"), Meter())
    vectors = torch.from_numpy(stage.mean_states(_TEXTS))
    hidden, width = second.facts.hidden, vectors.shape[1]
    random = torch.Generator().manual_seed(_SEED)
    weight = torch.eye(hidden) if hidden == width else _orthonormal(hidden, width, random)
    scale = length / float(torch.nn.functional.linear(vectors, weight).norm(dim=1).mean())
    null = torch.randn(hidden, generator=random) * length / hidden**0.5
    bias = torch.full((second.facts.layers,), settings.context_bias_init)
    head: tuple[torch.Tensor, ...] = ()
    if settings.output_head:
        inner = torch.randn(hidden, hidden, generator=random) / hidden**0.5
        head = (inner, torch.zeros(hidden), torch.zeros(hidden, hidden), torch.zeros(hidden))
    return ContextParts((weight * scale, torch.zeros(hidden)), null, bias, head)


def _orthonormal(rows: int, columns: int, random: torch.Generator) -> torch.Tensor:
    import torch

    drawn = torch.randn(max(rows, columns), min(rows, columns), generator=random)
    basis: torch.Tensor = torch.linalg.qr(drawn).Q
    return basis if rows >= columns else basis.T.contiguous()


def is_untrained(parts: ContextParts, settings: NativeCde) -> bool:
    """Whether the parts of a model are still those it was made with: any training moves a bias at the least."""
    begun = parts.bias == settings.context_bias_init
    return bool(begun.all()) and not bool(parts.projection[1].any())


def with_first_stage(settings: NativeCde, first: Checkpoint) -> NativeCde:
    """The settings with the first stage by its name, digest and files, where a name says for good which it is."""
    if settings.share_stages or first.name != MINILM:
        return settings.unnamed()
    return replace(settings, first_stage=first.name, first_stage_digest=first.digest, first_stage_files=first.files)


def _copy(folder: Path, into: Path) -> None:
    def left(_: str, names: Iterable[str]) -> set[str]:
        return {name for name in names if name in _LEFT or Path(name).suffix in OTHER_WEIGHTS | {".py", ".md"}}

    # Contents alone: what is installed may be read-only.
    shutil.copytree(folder, into, ignore=left, copy_function=shutil.copyfile, dirs_exist_ok=True)
