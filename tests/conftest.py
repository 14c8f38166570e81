"""Fixtures shared by all rooms: the real model, tiny real files, and where the shared evaluation data lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.local import LocalEncoder

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own variables must not decide what a test does."""
    for name in list(os.environ):
        if name.startswith(("CTXINDEX_", "QDRANT_")) and not name.startswith("CTXINDEX_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def _float32_unless_said() -> Iterator[None]:
    """Vectors are compared with those of other programs; the precision a machine would choose is tested by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctxindex.encoding.encoder.choose_dtype", lambda device: "float32")
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of all shared sets; a test that asks for it skips where it is absent, and fails in CI."""
    if not SHARED_DATA.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI runs with the shared data, and {SHARED_DATA} is not there")
        pytest.skip("the shared evaluation data is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def contracts(shared_data: Path) -> Path:
    """The folder of evaluation contracts."""
    return shared_data / "contracts"


@pytest.fixture(scope="session")
def samples() -> Path:
    """The contracts that are bundled with the project."""
    return REPOSITORY / "recipes" / "data" / "contracts"


@pytest.fixture(scope="session")
def minilm_late() -> LocalEncoder:
    """MiniLM, late chunking, float32 on the CPU."""
    return load_encoder("minilm", EncoderOptions(method="late", device="cpu"))


@pytest.fixture(scope="session")
def minilm_independent() -> LocalEncoder:
    """MiniLM, every chunk alone, float32 on the CPU."""
    return load_encoder("minilm", EncoderOptions(method="independent", device="cpu"))
