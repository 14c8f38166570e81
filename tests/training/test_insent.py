"""The InSeNT loss: the golden numbers, the formulas, gradients, and the mistakes that are known of its first code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.errors import ConfigError
from ctxindex.training import insent
from ctxindex.training.insent import Average, InsentBatch, InsentOptions, Vectors, insent_loss
from tests.training.reference import Case, cases, golden, options, reference, unit, wave

PLAIN = InsentOptions()
GOLDEN: list[tuple[float, Average, float, float, float, float]] = [
    (0.05, "macro", 2.361998, 3.368362, 3.267726, 3.800823),
    (0.05, "micro", 3.485994, 4.454488, 4.357638, 5.083188),
    (1.0, "macro", 1.059074, 1.806665, 1.731905, 2.084060),
    (1.0, "micro", 1.212166, 1.846937, 1.783460, 2.172590),
]


def numbers(batch: InsentBatch, chosen: InsentOptions = PLAIN) -> dict[str, float]:
    result = insent_loss(batch, chosen)
    return {entry.name: getattr(result, entry.name).item() for entry in fields(result)}


def gradients(batch: InsentBatch, chosen: InsentOptions = PLAIN) -> tuple[torch.Tensor, torch.Tensor]:
    leaves = batch.detached()
    insent_loss(leaves, chosen).loss.backward()  # type: ignore[no-untyped-call]
    chunks, queries = leaves.chunks.rows.grad, leaves.queries.rows.grad
    assert chunks is not None
    assert queries is not None
    return chunks, queries


@pytest.mark.parametrize(("tau", "average", "l_seq", "l_batch", "total", "joint"), GOLDEN)
def test_the_golden_numbers(
    tau: float, average: Average, l_seq: float, l_batch: float, total: float, joint: float
) -> None:
    batch = golden().batch()
    np.testing.assert_allclose(batch.chunks.rows[0], [0.540339, 0.478845, -0.284159, -0.630869], atol=1e-6)
    np.testing.assert_allclose(batch.queries.rows[0], [0.498632, 0.523695, 0.511820, 0.463843], atol=1e-6)
    found = numbers(batch, InsentOptions(tau=tau, average=average))
    expected = {"l_seq": l_seq, "l_batch": l_batch, "loss": total}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert numbers(batch, InsentOptions(tau=tau, average=average, mode="joint"))["loss"] == pytest.approx(
        joint, abs=1e-6
    )


def test_the_defaults_are_those_of_the_paper_and_the_code() -> None:
    assert (PLAIN.lambda_seq, PLAIN.tau, PLAIN.average, PLAIN.mode) == (0.1, 0.05, "macro", "insent")
    assert numbers(golden().batch())["loss"] == pytest.approx(3.2677258, abs=1e-6)


@settings(deadline=None, max_examples=150)
@given(case=cases(), chosen=options())
def test_the_loss_is_that_of_the_formulas(case: Case, chosen: InsentOptions) -> None:
    expected = reference(case, chosen)
    found = numbers(case.batch(), chosen)
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(case=cases(), chosen=options())
def test_gradients_are_those_of_finite_differences(case: Case, chosen: InsentOptions) -> None:
    batch = case.batch()

    def loss(chunks: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        moved = replace(batch, chunks=replace(batch.chunks, rows=chunks), queries=replace(batch.queries, rows=queries))
        return insent_loss(moved, chosen).loss

    leaves = batch.detached()
    assert torch.autograd.gradcheck(loss, (leaves.chunks.rows, leaves.queries.rows), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(case=cases(), chosen=options(), seed=st.integers(0, 100))
def test_the_order_of_documents_changes_nothing(case: Case, chosen: InsentOptions, seed: int) -> None:
    case.positives = []
    order = np.random.default_rng(seed).permutation(len(case.documents)).tolist()
    moved = replace(
        case,
        documents=[case.documents[document] for document in order],
        asked=[order.index(document) for document in case.asked],
    )
    assert numbers(moved.batch(), chosen) == pytest.approx(numbers(case.batch(), chosen), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(case=cases(), chosen=options())
def test_bfloat16_is_computed_in_float32_with_or_without_autocast(case: Case, chosen: InsentOptions) -> None:
    half = case.batch(torch.bfloat16)
    wide = replace(
        half,
        chunks=replace(half.chunks, rows=half.chunks.rows.float()),
        queries=replace(half.queries, rows=half.queries.rows.float()),
        others=half.others and replace(half.others, rows=half.others.rows.float()),
    )
    found, expected = insent_loss(half, chosen), insent_loss(wide, chosen)
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(expected.loss.item(), abs=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert insent_loss(wide, chosen).loss.item() == expected.loss.item()
    chunks, queries = gradients(half, chosen)
    assert chunks.dtype == queries.dtype == torch.bfloat16
    assert chunks.isfinite().all()
    assert queries.isfinite().all()
    exact = insent_loss(case.batch(), chosen).loss.item()
    most = 1 if chosen.query_mean else 3
    assert abs(found.loss.item() - exact) < 0.02 * most / chosen.tau


@settings(deadline=None, max_examples=40)
@given(case=cases(several=False), chosen=options())
def test_one_vector_is_late_interaction_with_multivectors_of_one(case: Case, chosen: InsentOptions) -> None:
    assert numbers(replace(case, several=True).batch(), chosen) == pytest.approx(
        numbers(case.batch(), chosen), abs=1e-9
    )


def test_sharp_scores_do_not_overflow() -> None:
    batch = golden().batch(torch.float32)
    chosen = InsentOptions(tau=1e-4)
    assert np.isfinite(numbers(batch, chosen)["loss"])
    assert all(gradient.isfinite().all() for gradient in gradients(batch, chosen))


def test_lambda_reaches_both_ends() -> None:
    """A lambda of 0 could not be set in the released code."""
    case = replace(golden(), queries=golden().queries[:1], asked=[0], golds=[[0]])
    first, second, third = case.documents
    sibling = replace(case, documents=[[first[0], wave(50), first[2]], second, third])
    elsewhere = replace(case, documents=[first, second, [wave(50)]])
    before, after = (numbers(each.batch(), InsentOptions(lambda_seq=0)) for each in (case, sibling))
    assert before["loss"] == after["loss"] == after["l_batch"]
    assert before["l_seq"] != after["l_seq"]
    before, after = (numbers(each.batch(), InsentOptions(lambda_seq=1)) for each in (case, elsewhere))
    assert before["loss"] == after["loss"] == after["l_seq"]
    assert before["l_batch"] != after["l_batch"]


def test_at_lambda_0_siblings_learn_through_the_context_alone() -> None:
    rng = np.random.default_rng(0)
    tokens = torch.tensor(unit(rng, 5, 4), requires_grad=True)  # three of a document, two of another
    sees = torch.tensor(np.kron(np.eye(2), np.ones((3, 3)))[:5, :5] + np.eye(5))
    chunks = torch.nn.functional.normalize(sees @ tokens, dim=1)
    batch = InsentBatch(Vectors(chunks), (3, 2), Vectors(torch.tensor(unit(rng, 1, 4))), (0,), ((1,),))
    (direct,) = torch.autograd.grad(insent_loss(batch, InsentOptions(lambda_seq=0)).loss, chunks, retain_graph=True)
    assert not direct[[0, 2]].any()
    insent_loss(batch, InsentOptions(lambda_seq=0)).loss.backward()  # type: ignore[no-untyped-call]
    assert tokens.grad is not None
    assert tokens.grad.any(dim=1).all()


def test_a_document_of_one_chunk_has_no_siblings_to_be_told_from() -> None:
    rng = np.random.default_rng(1)
    case = Case([[unit(rng, 1, 4)], [unit(rng, 1, 4)]], [unit(rng, 1, 4)], [0], [[0]])
    found = numbers(case.batch())
    assert found["l_seq"] == 0
    assert found["accuracy_seq"] == 1
    assert found["l_batch"] > 0
    for gradient in gradients(case.batch(), InsentOptions(lambda_seq=1)):
        assert not gradient.any()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("several", [False, True])
def test_a_batch_of_one_document_warns_that_there_is_nothing_to_compare(
    several: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The released configuration for late interaction trains like that (defect 7)."""
    case = replace(golden(), documents=golden().documents[:1], several=several)
    case = replace(case, queries=case.queries[:2], asked=[0, 0], golds=case.golds[:2])
    insent._warn_of_a_single_document.cache_clear()
    with caplog.at_level(logging.WARNING, logger="ctxindex"):
        assert numbers(case.batch(), InsentOptions(lambda_seq=1))["l_batch"] == 0
        assert not caplog.records
        assert numbers(case.batch())["l_batch"] == 0
        assert numbers(case.batch())["l_seq"] > 0
    assert caplog.messages == ["batches of one document: l_batch is 0, and nothing tells documents from each other"]
    assert all(gradient.isfinite().all() for gradient in gradients(case.batch()))


def test_a_document_without_queries_gives_negatives_only() -> None:
    case = golden()
    quiet = replace(case, queries=case.queries[:3], asked=[0, 0, 1], golds=case.golds[:3])
    smaller = replace(quiet, documents=case.documents[:2])
    with_it, without = numbers(quiet.batch()), numbers(smaller.batch())
    assert with_it["l_seq"] == without["l_seq"]
    assert with_it["l_batch"] > without["l_batch"]
    assert quiet.batch().weights("macro").tolist() == [0.25, 0.25, 0.5]
    assert quiet.batch().weights("micro") == pytest.approx([1 / 3] * 3)
    assert gradients(quiet.batch())[0][5:].any(dim=1).all()


def test_a_known_positive_is_no_negative_in_either_term() -> None:
    case = golden()
    one = replace(case, queries=case.queries[:1], asked=[0], golds=[[0]], positives=[(0, 2), (0, 7)])
    without = replace(one, documents=[case.documents[0][:2], case.documents[1], [*case.documents[2]]], positives=[])
    del without.documents[2][2]
    assert numbers(one.batch()) == pytest.approx(numbers(without.batch()), abs=1e-12)
    assert not gradients(one.batch())[0][[2, 7]].any()
    punished = numbers(one.batch(), InsentOptions(mask_positives=False))
    assert punished == numbers(replace(one, positives=[]).batch())
    assert punished["l_seq"] > numbers(one.batch())["l_seq"]
    assert punished["l_batch"] > numbers(one.batch())["l_batch"]


def test_several_golds_are_the_mean_of_each_without_the_others() -> None:
    case = replace(golden(), queries=golden().queries[:1], asked=[0])
    both = numbers(replace(case, golds=[[0, 2]]).batch())
    each = [replace(case, golds=[[gold]], positives=[(0, other)]).batch() for gold, other in ((0, 2), (2, 0))]
    assert both["loss"] == pytest.approx(sum(numbers(batch)["loss"] for batch in each) / 2, abs=1e-12)
    assert numbers(replace(case, golds=[[2, 0, 2]]).batch()) == both


@pytest.mark.parametrize("several", [False, True])
def test_chunks_from_elsewhere_are_negatives_without_a_gradient(several: bool) -> None:
    whole = replace(golden(), queries=golden().queries[:3], asked=[0, 0, 1], golds=golden().golds[:3], several=several)
    parted = replace(whole, documents=whole.documents[:2], others=whole.documents[2])
    batch = parted.batch()
    assert batch.others is not None
    batch.others.rows.requires_grad_()
    assert numbers(batch) == pytest.approx(numbers(whole.batch()), abs=1e-12)
    chunks, queries = gradients(batch)
    assert batch.others.rows.grad is None
    all_chunks, all_queries = gradients(whole.batch())
    torch.testing.assert_close(chunks, all_chunks[:5])
    torch.testing.assert_close(queries, all_queries)


def test_gradients_may_be_cached() -> None:
    """Encoding without a graph, the loss on vectors, then each document with its vectors' gradients: the same."""
    case, weights = golden(), torch.tensor(unit(np.random.default_rng(2), 4, 4), requires_grad=True)
    raw = case.batch().chunks.rows

    def encode(rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(rows @ weights, dim=1)

    insent_loss(replace(case.batch(), chunks=Vectors(encode(raw)))).loss.backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    direct, weights.grad = weights.grad, None
    with torch.no_grad():
        leaves = replace(case.batch(), chunks=Vectors(encode(raw))).detached()
    insent_loss(leaves).loss.backward()  # type: ignore[no-untyped-call]
    assert weights.grad is None
    assert leaves.chunks.rows.grad is not None
    parts = (torch.split_with_sizes(rows, leaves.counts) for rows in (raw, leaves.chunks.rows.grad))
    for part, gradient in zip(*parts, strict=True):
        encode(part).backward(gradient)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(weights.grad, direct)


def test_what_is_logged_has_no_graph() -> None:
    result = insent_loss(golden().batch().detached())
    assert result.loss.requires_grad
    assert not any(getattr(result, entry.name).requires_grad for entry in fields(result)[1:])


def test_an_empty_chunk_behind_the_last_is_refused() -> None:
    """The released training path has one in every document, a vector of zeros (defect 5)."""
    batch = golden().batch()
    rows = torch.cat([batch.chunks.rows, torch.zeros(1, 4).double()])
    with pytest.raises(ValueError, match=r"documents of 3, 2, 4 chunks .* and 10 chunk vectors"):
        replace(batch, chunks=Vectors(rows))
    phantom = replace(batch, chunks=Vectors(rows), counts=(3, 2, 5))
    with pytest.raises(ValueError, match="row 9 of chunks has the norm 0: vectors must be of unit length"):
        insent_loss(phantom)


def test_padding_takes_no_part() -> None:
    """Zero rows lift every maximum below 0 (defect 14): here all similarities are negative."""
    query, token = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[-1.0, 0.0]])
    padded = torch.zeros(3, 4, 2)
    padded[:, 0] = token
    padded[1, 1] = torch.tensor([-0.6, 0.8])
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    chunks = Vectors.from_padded(padded, mask)
    assert chunks.lengths == (1, 2, 1)
    batch = InsentBatch(chunks, (2, 1), Vectors.from_padded(query, torch.ones(1, 1)), (0,), ((0,),))
    found = numbers(batch, InsentOptions(tau=1.0))
    assert found["l_seq"] == pytest.approx(np.log(1 + np.exp(-0.6 + 1)), abs=1e-6)
    assert found["l_batch"] == pytest.approx(np.log(2), abs=1e-6)
    with pytest.raises(ValueError, match="number 1 has no vector at all"):
        Vectors.from_padded(padded, torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]))


def test_late_interaction_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 1 to 40 vectors, in an order that is not that of their lengths; each block keeps no products."""
    rng = np.random.default_rng(0)
    lengths = (3, 40, 1, 7, 7, 2, 25)
    chunks, queries = (torch.tensor(rng.normal(size=(count, 8))) for count in (sum(lengths), 9))
    chunks, queries = (torch.nn.functional.normalize(one, dim=1) for one in (chunks, queries))
    batch = InsentBatch(
        Vectors(chunks, lengths), (3, 4), Vectors(queries, (4, 5)), (0, 1), ((1,), (0, 2)), positives=((0, 5),)
    )
    whole = numbers(batch), gradients(batch)
    monkeypatch.setattr(insent, "_PRODUCTS", 2 * 5 * 30)
    assert numbers(batch) == pytest.approx(whole[0], abs=1e-12)
    for one, other in zip(gradients(batch), whole[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_late_interaction_has_a_temperature_that_fits_any_length_of_query() -> None:
    """The released code takes the bare sum (defect 8): the longer the query, the sharper the softmax."""
    case = replace(golden(), several=True)
    longer = replace(case, queries=[np.repeat(query, 32, axis=0) for query in case.queries])
    assert numbers(longer.batch())["loss"] == pytest.approx(numbers(case.batch())["loss"], abs=1e-9)
    summed = InsentOptions(query_mean=False, tau=1.0)
    assert numbers(longer.batch(), summed)["loss"] == pytest.approx(
        numbers(case.batch(), replace(summed, tau=1 / 32))["loss"], abs=1e-9
    )


def test_golds_count_within_their_own_document() -> None:
    """The baseline, every chunk a document of its own: the released labels pointed at other columns (defect 9)."""
    rng = np.random.default_rng(3)
    chunks = [unit(rng, 1, 6) for _ in range(8)]
    case = Case([[chunk] for chunk in chunks], [unit(rng, 1, 6) for _ in range(8)], list(range(8)), [[0]] * 8)
    batch = case.batch()
    scores = batch.queries.rows @ batch.chunks.rows.T / 0.05
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(8)).item()
    found = numbers(batch, InsentOptions(lambda_seq=0))
    assert found["loss"] == pytest.approx(expected, abs=1e-9)
    assert found["l_seq"] == 0
    perfect = numbers(replace(case, queries=chunks).batch())
    assert perfect["accuracy"] == perfect["accuracy_seq"] == 1


def test_a_collapsed_encoder_is_not_taken_for_a_good_one() -> None:
    same = unit(np.random.default_rng(4), 1, 4)
    case = Case([[same, same], [same]], [same], [0], [[0]])
    found = numbers(case.batch())
    assert (found["accuracy"], found["accuracy_seq"]) == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"golds": ((0,), (3,), (1,), (3,), (0,), (3,))}, "query 1: gold chunks 3 are out of range, document 0 has 3"),
        ({"golds": ((-1,), (2,), (1,), (3,), (0,), (3,))}, "query 0: gold chunks -1 are out of range"),
        ({"golds": ((0,), (2,), (), (3,), (0,), (3,))}, "query 2 has no gold chunk"),
        ({"documents": (0, 0, 1, 2, 2, 3)}, "query 5: document 3 is out of range, there are 3"),
        ({"documents": (0, 0)}, "6 queries, 2 document numbers and 6 lists of golds"),
        ({"counts": (3, 2, 4, 0)}, "each has one at least"),
        ({"positives": ((0, 9),)}, r"the positive \(0, 9\) is out of range, there are 6 queries and 9 chunks"),
        ({"positives": ((6, 0),)}, r"the positive \(6, 0\) is out"),
        ({"others": Vectors(torch.ones(2, 3))}, "vectors of different dims: 4, 4, 3"),
        ({"queries": Vectors(torch.ones(6, 4), (1,) * 6)}, "one vector each, or all several"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(golden().batch(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vectors(torch.ones(3)), r"vectors are \(rows, dim\), not \(3,\)"),
        (lambda: Vectors(torch.ones(3, 2), (1, 1)), "the lengths add up to 2, and there are 3 rows"),
        (lambda: insent_loss(replace(golden().batch(), queries=Vectors(torch.full((6, 4), torch.nan)))), "norm nan"),
        (lambda: insent_loss(replace(golden().batch(), others=Vectors(torch.ones(1, 4)))), "row 0 of others .* norm 2"),
    ],
)
def test_vectors_that_are_none_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "values",
    [{"lambda_seq": 1.1}, {"lambda_seq": -0.1}, {"tau": 0}, {"tau": float("nan")}, {"average": "all"}, {"mode": ""}],
)
def test_options_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        InsentOptions(**values)  # type: ignore[arg-type]
