"""Rows packed behind each other: nothing is lost, and every row has the positions it would have alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from ctxindex.encoding.packing import Packing

LENGTHS = st.lists(st.integers(1, 700), min_size=1, max_size=40).map(lambda found: tuple(sorted(found, reverse=True)))


@given(LENGTHS)
def test_ids_and_positions_are_those_of_each_row(lengths: tuple[int, ...]) -> None:
    rows = [np.arange(length, dtype=np.int32) + 1000 * number for number, length in enumerate(lengths)]
    packing = Packing(lengths)
    ids, positions = packing.pack(rows, filler=-1)
    assert ids.shape == positions.shape == (1, packing.filled)
    assert packing.filled % 64 == 0
    assert 0 <= packing.filled - sum(lengths) < 64
    for row, start, length in zip(rows, packing.starts, lengths, strict=False):
        np.testing.assert_array_equal(ids[0, start : start + length], row)
        np.testing.assert_array_equal(positions[0, start : start + length], np.arange(length))
    assert (ids[0, packing.tokens :] == -1).all()
    assert (positions[0, packing.tokens :] == 0).all()


def test_positions_behind_a_padding_token_are_those_of_transformers() -> None:
    import torch

    rows = [np.array([0, 5, 1, 6, 2], dtype=np.int32), np.array([0, 7, 2], dtype=np.int32)]
    _, positions = Packing((5, 3)).pack(rows, filler=1, padding=1)
    for row, found in zip(rows, (positions[0, :5], positions[0, 5:8]), strict=True):
        ids = torch.from_numpy(row[None].astype(np.int64))
        embeddings: Any = RobertaEmbeddings  # its functions carry no types
        expected = embeddings.create_position_ids_from_input_ids(ids, 1)
        np.testing.assert_array_equal(found, expected[0].numpy())


@given(LENGTHS)
def test_groups_hold_every_row_once(lengths: tuple[int, ...]) -> None:
    groups = Packing(lengths).groups
    assert tuple(length for group in groups for length in group.lengths) == lengths
    ends = [0, *(group.start + sum(group.lengths) for group in groups)]
    assert [group.start for group in groups] == ends[:-1]
    for group in groups:
        assert group.longest % 16 == 0
        assert all(0 <= group.longest - length < 16 for length in group.lengths)


@given(LENGTHS, st.integers(1, 3))
def test_by_head_and_back(lengths: tuple[int, ...], heads: int) -> None:
    packing = Packing(lengths)
    cells, back = packing.by_head(heads)
    tokens = np.arange(packing.filled * heads)
    np.testing.assert_array_equal(tokens[cells][back][: packing.tokens * heads], tokens[: packing.tokens * heads])
    start = 0
    for group in packing.groups:
        stop = start + group.cells * heads
        rectangle = cells[start:stop].reshape(len(group.lengths), heads, group.longest)
        first = group.start
        for row, length in zip(rectangle, group.lengths, strict=True):
            for head in range(heads):
                np.testing.assert_array_equal(row[head, :length], (first + np.arange(length)) * heads + head)
                assert (row[head, length:] == first * heads + head).all()
            first += length
        start = stop
    assert start == len(cells)
