"""A tuned model as its difference from the model that it was tuned from: a small file, and the way back.

Who has the base model needs of the tuned one only what training changed, and of that not every bit:

    matrices     d[r, :] = scale[r] * q[r, :]    q int8, scale float32 = max |d[r, :]| / 127: off by at most scale / 2
    other        d in float32 (biases and norms: few numbers)
    unchanged    nothing

The tuned model is then base + d in float32. Numbers are put in their places in the bytes of the base's own file, so
what did not change stays what it is to the bit, and the result is the same on every machine and with every version of
the libraries: its sha256 is known when the difference is made, and kept with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.model_files import OTHER_WEIGHTS, read_header
from ctxindex.encoding.modules import TRANSFORMER_SETTINGS
from ctxindex.encoding.trained import FILE as SETTINGS_FILE
from ctxindex.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

FORMAT = 1
CARD = "README.md"

_METADATA = "difference"
_SCALES = ":scales"
"""What the name of a matrix's scales ends with, after that of the matrix."""

_LEVELS = 127


@dataclass(frozen=True, slots=True)
class DifferenceFacts:
    """What a difference says of itself: sha256, hex, of the base's weights, and of those that come out."""

    base_sha256: str
    weights_sha256: str


def read_facts(file: Path) -> DifferenceFacts:
    """The facts in the header of a difference, read without its tensors.

    Raises:
        ModelError: it is no difference, or of another format.
    """
    header, _ = read_header(file)
    try:
        values = json.loads(header.get("__metadata__", {}).get(_METADATA, "{}"))
        if values.get("format") != FORMAT:
            raise ModelError(
                f"{file} is no difference of weights in format {FORMAT} (format {values.get('format')!r}): "
                "it is of another ctxindex, or another kind of file"
            )
        return DifferenceFacts(str(values["base_sha256"]), str(values["weights_sha256"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{file} is damaged: what it says of itself cannot be read") from None


def write_difference(base: Path, tuned: Path, file: Path) -> DifferenceFacts:
    """Write what was changed in the model folder `tuned`, compared with `base`, to `file`; the same bytes each time.

    Each folder has one file of weights. Tensors that only the base has are taken as unchanged: a tuned model is often
    saved without buffers and modules that nothing uses.

    Raises:
        ModelError: the weights are not of one model in float32, are the same, or not all of them are numbers; or
            `file` cannot be written.
    """
    from safetensors.numpy import save

    before, after = _Weights.read(_weights_of(base)), _Weights.read(_weights_of(tuned))
    alone = sorted(after.header.keys() - before.header.keys())
    if alone:
        raise ModelError(f"{base} has no {alone[0]}, which {tuned} has: it is not what that model was tuned from")
    tensors: dict[str, Any] = {}
    for name in sorted(after.header):
        if not after.is_equal(name, before):
            tensors |= _kept(name, before.array(name), after.array(name))
    if not tensors:
        raise ModelError(f"the weights in {tuned} are those in {base}: there is no difference to write")
    base_sha256 = before.sha256()
    _add(before, tensors)
    facts = DifferenceFacts(base_sha256, before.sha256())
    said = {"format": FORMAT, "base_sha256": facts.base_sha256, "weights_sha256": facts.weights_sha256}
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        # One entry: several would be written in another order each time.
        partial.write_bytes(save(tensors, metadata={_METADATA: json.dumps(said)}))
        partial.replace(file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ModelError(f"cannot write {file}: {error.strerror}") from None
    return facts


def apply_difference(base: Path, file: Path, into: Path, *, hint: str = "get that model again") -> None:
    """Make the tuned model: a complete folder `into`, with all that is beside the weights taken from the base.

    The settings and the card that lie beside `file` come into the folder, in place of the base's. The folder appears
    complete; one that is there already is put right file by file, each in one step, so that it makes no difference how
    many processes do it at once.

    Args:
        base: The folder of the base model.
        file: What `write_difference` wrote.
        into: The folder to make.
        hint: What to do about a base that is another model.

    Raises:
        ModelError: the base has other weights than those the difference was made of, or a file cannot be read.
        OSError: `into` cannot be written.
    """
    facts, source = read_facts(file), _weights_of(base)
    weights = _Weights.read(source)
    found = weights.sha256()
    if found != facts.base_sha256:
        raise ModelError(
            f"the weights in {base} (sha256 {found[:12]}…) are not those that the difference {file} was made of "
            f"({facts.base_sha256[:12]}…): {hint}"
        )
    with suppress(KeyError, ValueError):  # tensors that the base has not, or of other shapes
        _add(weights, _tensors(file))
    if weights.sha256() != facts.weights_sha256:
        raise ModelError(f"{file} is damaged: it does not give the weights that it was made for")
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(f"{into.name}.{uuid.uuid4().hex}.tmp")
    try:
        _copy(base, partial)
        _copy_beside(file, partial)
        (partial / source.relative_to(base)).write_bytes(weights.data)
        _move(partial, into)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Weights:
    """The bytes of a safetensors file, of which `data` begins at `start`, and where its tensors lie in them."""

    file: Path
    data: bytearray
    header: Mapping[str, Any]
    start: int

    @classmethod
    def read(cls, file: Path) -> _Weights:
        header, start = read_header(file)
        try:
            data = bytearray(file.read_bytes())
        except OSError as error:
            raise ModelError(f"cannot read {file}: {error}") from None
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if start + max((entry["data_offsets"][1] for entry in tensors.values()), default=0) != len(data):
            raise ModelError(f"{file} is damaged: it has not the length that it says")
        return cls(file, data, tensors, start)

    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def is_equal(self, name: str, other: _Weights) -> bool:
        """Whether both have the same bytes under that name."""
        kinds = {(one.header[name]["dtype"], *one.header[name]["shape"]) for one in (self, other)}
        return len(kinds) == 1 and self._bytes(name) == other._bytes(name)

    def array(self, name: str) -> Array:
        """A view of a tensor in float32."""
        import numpy as np

        entry = self.header[name]
        if entry["dtype"] != "F32":
            raise ModelError(f"{name} in {self.file} is {entry['dtype']}: a difference is of weights in float32 (F32)")
        return np.frombuffer(self._bytes(name), "<f4").reshape(entry["shape"])

    def _bytes(self, name: str) -> memoryview:
        begin, end = self.header[name]["data_offsets"]
        return memoryview(self.data)[self.start + begin : self.start + end]


def _weights_of(folder: Path) -> Path:
    files = sorted(folder.rglob("*.safetensors"))
    if len(files) != 1:
        raise ModelError(f"{folder} has {len(files)} *.safetensors files: a difference is of models with one")
    return files[0]


def _kept(name: str, base: Array, tuned: Array) -> dict[str, npt.NDArray[Any]]:
    """What is kept of the difference of two tensors, by name; nothing where they have the same numbers."""
    import numpy as np

    if base.shape != tuned.shape:
        raise ModelError(f"{name} is {base.shape} in the base and {tuned.shape} in the tuned model")
    difference = tuned.astype(np.float64) - base
    if not np.isfinite(difference).all():
        raise ModelError(f"{name} holds values that are no numbers, or no finite ones")
    if not difference.any():
        return {}
    if difference.ndim < 2:
        return {name: difference.astype(np.float32)}
    rows = difference.reshape(len(difference), -1)
    wanted = np.abs(rows).max(1) / _LEVELS
    scales = wanted.astype(np.float32)
    # Rounded up, or the largest of a row would need 128.
    scales = np.where(scales < wanted, np.nextafter(scales, np.float32(np.inf)), scales)
    levels = np.rint(rows / np.where(scales > 0, scales, 1)[:, None].astype(np.float64))
    return {name: levels.astype(np.int8).reshape(base.shape), name + _SCALES: scales}


def _tensors(file: Path) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {file}: {error}") from None


def _add(weights: _Weights, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Add the difference to the weights, in their place."""
    import numpy as np

    for name, kept in tensors.items():
        if name.endswith(_SCALES):
            continue
        target, difference = weights.array(name), kept.astype(np.float32)
        if name + _SCALES in tensors:
            scales = tensors[name + _SCALES]
            difference *= scales.reshape(-1, *[1] * (kept.ndim - 1))
        # Where nothing is added, bits are to stay: adding zero would turn -0 into 0.
        np.add(target, difference, out=target, where=kept != 0)


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def _copy(base: Path, into: Path) -> None:
    """Copy the files of a model, without the weights, of which those in other formats would be those of the base."""
    for source in _files(base):
        target = into / source.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix not in OTHER_WEIGHTS and source.suffix != ".safetensors":
            shutil.copyfile(source, target)


def _copy_beside(file: Path, into: Path) -> None:
    if (file.parent / TRANSFORMER_SETTINGS).is_file():  # else the base's own go for this model as well
        shutil.copyfile(file.parent / TRANSFORMER_SETTINGS, into / TRANSFORMER_SETTINGS)
    for name in (SETTINGS_FILE, CARD):
        if (file.parent / name).is_file():
            shutil.copyfile(file.parent / name, into / name)
        else:
            (into / name).unlink(missing_ok=True)  # the base's, which says nothing of this model


def _move(partial: Path, into: Path) -> None:
    try:
        partial.rename(into)
        return
    except OSError:
        if not into.is_dir():
            raise
    # Made by another process meanwhile, or damaged: every process puts the same bytes in the same places.
    wanted = {source.relative_to(partial) for source in _files(partial)}
    for name in sorted(wanted):
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(into / name)
    for file in _files(into):
        if file.relative_to(into) not in wanted:
            file.unlink(missing_ok=True)
