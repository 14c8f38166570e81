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


@given(LENGTHS, st.integers(1, 2_000_000))
def test_groups_hold_every_row_once(lengths: tuple[int, ...], scores: int) -> None:
    groups = Packing(lengths).groups(scores)
    assert tuple(length for group in groups for length in group.lengths) == lengths
    ends = [0, *(group.stop for group in groups)]
    assert [group.start for group in groups] == ends[:-1]
    for group in groups:
        assert len(group.lengths) == 1 or len(group.lengths) * group.longest**2 <= scores
        assert group.longest - group.lengths[-1] < max(16, group.longest / 8 + 1)


@given(LENGTHS)
def test_a_rectangle_and_back(lengths: tuple[int, ...]) -> None:
    tokens = np.arange(sum(lengths))
    for group in Packing(lengths).groups(10**6):
        cells, back = group.rectangle()
        assert cells.size == len(group.lengths) * group.longest
        np.testing.assert_array_equal(tokens[cells][back], tokens[group.start : group.stop])
        for row, length in zip(cells.reshape(-1, group.longest), group.lengths, strict=True):
            assert (row[length:] == row[0]).all()
