"""The rules of the house, read off the imports: who may import whom, and who may import what from outside."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctxindex
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "ctxindex"
CONNECTORS = REPOSITORY / "connectors"

LEVELS = [
    {"cli"},
    {"index"},
    {"integrations"},
    {"training"},
    {"evaluation"},
    {"execution"},
    {"indexing", "retrieval", "reports"},
    {"encoding"},
    {"chunking"},
    {"loading", "stores"},
    {"spec", "config", "llm"},
    {"types", "errors", "metering"},
]
"""A room may import what stands in a later line than its own."""

OUTSIDE = {
    "torch": {"encoding", "training"},
    "transformers": {"encoding", "training"},
    "tokenizers": {"encoding", "training"},
    "huggingface_hub": {"encoding", "training", "evaluation/datasets"},
    "langchain_text_splitters": {"chunking"},
    "llama_index": {"integrations/llama_index"},
    "bm25s": {"evaluation"},
    "pytrec_eval": {"evaluation"},
    "scipy": {"evaluation"},
    "matplotlib": {"evaluation/report"},
    "jinja2": {"evaluation/report"},
    "openai": {"integrations/llama_index"},
    "mteb": {"integrations/mteb"},
    "accelerate": {"training"},
    "peft": {"training"},
    "tensorboard": {"training"},
    "sklearn": {"training/contextual"},
    "threadpoolctl": {"training/contextual"},
    "click": {"cli"},
    "tqdm": {"cli"},
    "lancedb": set(),
    "qdrant_client": set(),
    "qdrant_edge": set(),
    "pyarrow": {"evaluation/datasets"},
    "yaml": {"evaluation/datasets"},
    "ctxindex_lancedb": set(),
    "ctxindex_qdrant": set(),
}
"""Packages that only some rooms may import; the connectors have rules of their own."""


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def level(room: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def files(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("file", files(PACKAGE), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_what_stands_right_of_it(file: Path) -> None:
    inside = file.relative_to(PACKAGE)
    if inside == Path("__init__.py"):
        return  # the lazy public names
    room = inside.parts[0].removesuffix(".py")
    for module in imports(file):
        parts = module.split(".")
        if parts[0] == "ctxindex" and len(parts) > 1 and parts[1] != room and parts[1] != "__version__":
            assert level(parts[1]) > level(room), f"{room} imports {module}"
        allowed = OUTSIDE.get(parts[0])
        assert allowed is None or any(str(inside).startswith(name) for name in allowed), f"{inside} imports {module}"


@pytest.mark.parametrize("file", files(CONNECTORS), ids=lambda file: str(file.relative_to(CONNECTORS)))
def test_a_connector_imports_only_the_store_seam(file: Path) -> None:
    own = file.relative_to(CONNECTORS).parts[0]
    for module in imports(file):
        parts = module.split(".")
        if parts[0] == "ctxindex":
            assert parts[1] in {"stores", "types", "errors"}, module
        assert parts[0] not in {"torch", "transformers", "llama_index", "langchain_text_splitters", "mteb"}, module
        assert not parts[0].startswith("ctxindex_") or parts[0] == own, module


@pytest.mark.parametrize("file", files(PACKAGE) + files(CONNECTORS) + files(REPOSITORY / "tests"), ids=str)
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_public_names_are_all_there() -> None:
    for name in ctxindex.__all__:
        assert getattr(ctxindex, name) is not None
    assert set(ctxindex.__all__) == set(dir(ctxindex))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = ctxindex.Nothing


def loaded_by(code: str) -> set[str]:
    """The top-level packages that are in memory after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_importing_the_package_and_the_facade_is_cheap() -> None:
    heavy = {"torch", "transformers", "llama_index", "langchain_text_splitters", "lancedb", "qdrant_client", "pyarrow"}
    heavy |= {"mteb"}
    assert not loaded_by("import ctxindex") & (heavy | {"numpy", "click"})
    assert not loaded_by("import ctxindex.index, ctxindex.cli.ingest, ctxindex.cli.search") & heavy
    assert not loaded_by("import ctxindex.llm") & (heavy | {"numpy", "openai"})
    for_evaluation = {"bm25s", "huggingface_hub", "jinja2", "matplotlib", "openai", "pytrec_eval", "scipy", "yaml"}
    rooms = "import ctxindex.evaluation, ctxindex.evaluation.contextual, ctxindex.cli.eval, ctxindex.cli.evaluating"
    assert not loaded_by(rooms) & (heavy | for_evaluation)
    assert not loaded_by("import ctxindex.cli.finetune") & (heavy | for_evaluation | {"numpy"})
    training = "import ctxindex.training.batches, ctxindex.training.insent, ctxindex.training.results.merging"
    assert not loaded_by(training) & (heavy | for_evaluation | {"safetensors"})
