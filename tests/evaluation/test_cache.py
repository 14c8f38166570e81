"""Vectors on disk: whole or not there, of one encoder, and there again after a kill."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ctxindex.encoding.local import LocalEncoder
from ctxindex.errors import ConfigError
from ctxindex.evaluation import Configuration
from ctxindex.evaluation.cache import CODE, DiskCache, Kept, MemoryCache, default_folder, fingerprint, key_of
from ctxindex.evaluation.evaluator import Evaluator
from ctxindex.spec import EncoderSpec
from ctxindex.types import Chunk, ChunkedDocument, Document
from tests.conftest import REPOSITORY
from tests.encoding.tiny import save_sentence_transformer
from tests.evaluation.builders import FakeEncoder, people

SPEC = FakeEncoder().spec


def kept(seed: int = 0, *, seconds: float = 0.5) -> Kept:
    return Kept(np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32), None, seconds)


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.safetensors"))


def same(one: Kept, other: Kept) -> bool:
    equal = one.vectors.dtype == other.vectors.dtype and bool(np.array_equal(one.vectors, other.vectors))
    return equal and (one.lengths, one.seconds) == (other.lengths, other.seconds)


def test_what_is_kept_is_found_again_as_it_was(tmp_path: Path) -> None:
    several = Kept(np.arange(12).reshape(6, 2).astype(np.float16), (1, 3, 2), 1.25)
    cache = DiskCache(tmp_path, SPEC)
    cache.keep("one", kept())
    cache.keep("several", several)
    cache.flush()
    for reader in (cache, DiskCache(tmp_path, SPEC)):
        found = dict(reader.find(["several", "one", "other"]))
        assert found.keys() == {"one", "several"}
        assert same(found["one"], kept())
        assert same(found["several"], several)
        assert dict(reader.find(["one"])).keys() == {"one"}
        assert dict(reader.find([])) == {}


def test_what_is_asked_for_need_not_be_on_disk_yet(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, SPEC)
    cache.keep("a", kept())
    assert files(tmp_path) == []
    assert dict(cache.find(["a"])).keys() == {"a"}


@pytest.mark.parametrize("turn", [lambda it: it.T, lambda it: it[:, ::2], np.asfortranarray])
def test_numbers_do_not_depend_on_how_they_lie_in_memory(tmp_path: Path, turn: Any) -> None:
    turned = replace(kept(), vectors=turn(kept().vectors))
    assert not turned.vectors.flags.c_contiguous
    cache = DiskCache(tmp_path, SPEC)
    cache.keep("a", turned)
    assert same(dict(cache.find(["a"]))["a"], turned)


@pytest.mark.parametrize(
    "change",
    [{"digest": "1"}, {"files": "1"}, {"dtype": "bfloat16"}, {"anchor": 8}, {"document_prefix": "passage: "}],
)
def test_another_encoder_has_another_folder(tmp_path: Path, change: dict[str, Any]) -> None:
    other: EncoderSpec = replace(SPEC, **change)
    mine, theirs = DiskCache(tmp_path, SPEC), DiskCache(tmp_path, other)
    mine.keep("a", kept())
    mine.flush()
    assert dict(theirs.find(["a"])) == {}
    theirs.keep("a", kept(1))
    assert len(list(tmp_path.iterdir())) == 2
    assert same(dict(mine.find(["a"]))["a"], kept())


def test_a_model_may_move_and_a_version_of_ours_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(SPEC)
    assert fingerprint(replace(SPEC, model="/elsewhere")) == before
    monkeypatch.setattr("ctxindex.evaluation.cache.CODE", ("99",))
    assert fingerprint(SPEC) != before


def test_a_field_that_came_later_changes_no_key_where_it_says_nothing() -> None:
    given = {name: value for name, value in asdict(SPEC).items() if name != "context"}
    canonical = json.dumps([*CODE, given | {"model": None}], ensure_ascii=False, sort_keys=True)
    assert fingerprint(SPEC) == hashlib.sha256(canonical.encode()).hexdigest()
    assert fingerprint(replace(SPEC, context="null")) != fingerprint(SPEC)


@pytest.mark.parametrize("damage", ["empty", "truncated", "junk", "header", "foreign", "folder"])
def test_what_cannot_be_read_counts_as_not_there(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache = DiskCache(tmp_path, SPEC)
    cache.keep("a", kept())
    cache.flush()
    (file,) = files(tmp_path)
    content = file.read_bytes()
    damaged = {"empty": b"", "truncated": content[:-5], "junk": b"\xff" * 300, "header": content[:20]}
    if damage in damaged:
        file.write_bytes(damaged[damage])
    elif damage == "foreign":
        save_file({"other": np.zeros(3)}, file, metadata={"entries": '{"a": {"lengths": null}}'})
    else:
        file.unlink()
        file.mkdir()
    assert dict(cache.find(["a"])) == {}
    assert f"the cached vectors in {file.name} are not readable and are made again" in caplog.text
    cache.keep("a", kept(1))
    assert same(dict(cache.find(["a"]))["a"], kept(1))


def test_damage_to_one_file_leaves_the_others(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, SPEC)
    for number in range(4):
        cache.keep(str(number), kept(number))
        cache.flush()
    assert len(files(tmp_path)) == 4
    files(tmp_path)[1].write_bytes(b"")
    found = dict(cache.find(["0", "1", "2", "3"]))
    assert len(found) == 3
    assert all(same(one, kept(int(key))) for key, one in found.items())


def test_what_is_not_finished_is_never_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = DiskCache(tmp_path, SPEC)
    cache.keep("a", kept())
    cache.flush()
    (file,) = files(tmp_path)
    file.rename(file.with_suffix(".tmp"))
    assert dict(cache.find(["a"])) == {}
    assert not caplog.records
    cache.keep("b", kept())
    cache.flush()
    assert [file.suffix for file in sorted(file.parent.iterdir())].count(".tmp") == 1, "it leaves none itself"


def test_two_caches_in_one_folder_read_what_the_other_wrote(tmp_path: Path) -> None:
    one, other = DiskCache(tmp_path, SPEC), DiskCache(tmp_path, SPEC)
    one.keep("a", kept(1))
    other.keep("b", kept(2))
    one.flush()
    other.flush()
    for cache in (one, other):
        found = dict(cache.find(["a", "b"]))
        assert same(found["a"], kept(1))
        assert same(found["b"], kept(2))


def test_a_segment_is_written_when_it_is_big_or_took_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, SPEC)
    cache.keep("a", kept(seconds=20))
    assert len(files(tmp_path)) == 0
    cache.keep("b", kept(seconds=10))
    assert len(files(tmp_path)) == 1
    cache.keep("c", kept(seconds=29))
    assert len(files(tmp_path)) == 1, "what is written is no longer counted"
    monkeypatch.setattr("ctxindex.evaluation.cache._SEGMENT_BYTES", 4 * kept().vectors.nbytes)
    for number in range(6):
        cache.keep(str(number), kept(seconds=0))
    assert len(files(tmp_path)) == 2
    cache.flush()
    cache.flush()
    assert len(files(tmp_path)) == 3
    assert len(dict(cache.find(["a", "b", "c", *map(str, range(6))]))) == 9


def test_where_nothing_can_be_written_the_run_goes_on_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = DiskCache(tmp_path / "root", SPEC)
    cache.keep("a", kept())
    shutil.rmtree(tmp_path / "root")
    cache.flush()
    assert "vectors could not be kept in" in caplog.text
    assert dict(cache.find(["a"])) == {}


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot keep vectors in .*file.*--no-cache keeps none"):
        DiskCache(tmp_path / place, SPEC)


DOCUMENT = ChunkedDocument(Document("a", "one two", "Title"), (Chunk(0, 0, 3, "one"), Chunk(1, 4, 7, "two")))


def test_the_key_is_of_all_that_an_encoder_may_read() -> None:
    first, second = DOCUMENT.chunks
    changed = [
        replace(DOCUMENT, document=replace(DOCUMENT.document, title="Other")),
        replace(DOCUMENT, document=replace(DOCUMENT.document, title=None)),
        replace(DOCUMENT, document=replace(DOCUMENT.document, text="one  wo")),
        replace(DOCUMENT, chunks=(first,)),
        replace(DOCUMENT, chunks=(first, replace(second, text="Title\ntwo"))),
        replace(DOCUMENT, chunks=(first, replace(second, start=3))),
        replace(DOCUMENT, chunks=(replace(first, end=4), second)),
    ]
    keys = {key_of(one) for one in (DOCUMENT, *changed)}
    assert len(keys) == 1 + len(changed)
    moved = replace(DOCUMENT.document, doc_id="b", metadata={"page": 1})
    assert key_of(replace(DOCUMENT, document=moved)) == key_of(DOCUMENT)


def test_memory_keeps_for_the_length_of_a_run() -> None:
    cache = MemoryCache()
    cache.keep("a", kept())
    cache.flush()
    assert same(dict(cache.find(["a", "b"]))["a"], kept())
    assert dict(cache.find(["b"])) == {}


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "ctxindex"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert default_folder() == tmp_path / "home" / ".cache" / "ctxindex"

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="no home folder to keep vectors in: give --cache DIR"):
        default_folder()


# It stops for ever behind its second document, so that the kill falls between two.
RUN = """
import sys, time
from pathlib import Path
from ctxindex.evaluation import Configuration, cache
from ctxindex.evaluation.evaluator import Evaluator, Unwatched
from tests.evaluation.builders import people
cache._SEGMENT_BYTES = 1
class Watch(Unwatched):
    ready = 0
    def done(self, doc_id, failure):
        self.ready += 1
        if self.ready == 2:
            print("two", flush=True)
            time.sleep(600)
evaluator = Evaluator(device="cpu", cache=Path(sys.argv[2]), watch=Watch())
list(evaluator.run(Configuration("late", settings={"model": sys.argv[1], "dtype": "float32"}), [people()]))
"""


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_sentence_transformer(tmp_path / "model")
    place = tmp_path / "cache"
    command = [sys.executable, "-c", RUN, str(model), str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "two\n"
        process.send_signal(signal.SIGKILL)
    assert len(files(place)) == 2

    encoded: list[str] = []
    encode = LocalEncoder.encode_documents

    def counted(self: LocalEncoder, documents: Any) -> Any:
        asked = list(documents)
        encoded.extend(one.document.doc_id for one in asked)
        return encode(self, asked)

    monkeypatch.setattr(LocalEncoder, "encode_documents", counted)
    configuration = Configuration("late", settings={"model": str(model), "dtype": "float32"})
    (run,) = Evaluator(device="cpu", cache=place).run(configuration, [people()])
    assert len(encoded) == 2
    rest = [one for one in run.corpus.documents if one.document.doc_id not in encoded]
    assert run.cached == sum(len(one.chunks) for one in rest)
    (again,) = Evaluator(device="cpu", cache=place).run(configuration, [people()])
    assert len(encoded) == 2
    assert again.cached == run.corpus.n_chunks
    (undisturbed,) = Evaluator(device="cpu").run(configuration, [people()])
    assert len(encoded) == 6
    for other in (run, again):
        np.testing.assert_array_equal(other.ranking.chunks, undisturbed.ranking.chunks)
        np.testing.assert_allclose(other.ranking.scores, undisturbed.ranking.scores, atol=1e-5)


def test_seconds_on_other_hardware_say_nothing_here(tmp_path: Path) -> None:
    made = DiskCache(tmp_path, SPEC, "cpu 2")
    made.keep("a", kept())
    made.flush()
    there = dict(DiskCache(tmp_path, SPEC, "cuda 2").find(["a"]))["a"]
    assert math.isnan(there.seconds)
    np.testing.assert_array_equal(there.vectors, kept().vectors)
    assert dict(DiskCache(tmp_path, SPEC, "cpu 2").find(["a"]))["a"].seconds == kept().seconds
