"""MaxSim, the score of late interaction, exact and with masks, in numpy and in torch.

    MaxSim(Q, D) = sum over q in Q of (max over d in D of q·d)

Q are a query's vectors and D a document's (here: a chunk's), all of unit length. A mask says which rows of a padded
array are real. A document row that is not takes no part in the maximum: it counts as minus infinity. Multiplied by
zero instead, it would count as a product of 0, and lift every maximum that is negative: Q = [[1, 0]] and D = [[-1, 0]]
score -1, with or without padding. A query row that is not real adds nothing. Products and sums are float32 whatever
the inputs are. A document without any real row scores minus infinity.
Source: "ColBERT", arXiv 2004.12832, equation 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from ctxindex.types import FloatArray

    Mask = npt.NDArray[np.bool_]


def max_sim(
    queries: npt.NDArray[np.floating],
    documents: npt.NDArray[np.floating],
    query_mask: Mask | None = None,
    document_mask: Mask | None = None,
) -> FloatArray:
    """Every query with every document.

    Args:
        queries: (queries, query rows, dim), floats of any size.
        documents: (documents, document rows, dim).
        query_mask: (queries, query rows), True where a row is real; all are where it is left out.
        document_mask: (documents, document rows), the same.

    Returns:
        (queries, documents) float32.
    """
    left, right = queries.astype(np.float32, copy=False), documents.astype(np.float32, copy=False)
    products = np.einsum("qid,njd->qnij", left, right, optimize=True)
    if document_mask is not None:
        products = np.where(document_mask[None, :, None, :], products, np.float32(-np.inf))
    best = products.max(axis=3)  # (queries, documents, query rows)
    if query_mask is not None:
        best = np.where(query_mask[:, None, :], best, np.float32(0))
    scores: FloatArray = best.sum(axis=2, dtype=np.float32)
    return scores


def max_sim_torch(
    queries: torch.Tensor,
    documents: torch.Tensor,
    query_mask: torch.Tensor | None = None,
    document_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same in torch, on the tensors' own device, with gradients; shapes and result as of `max_sim`.

    What is float64 stays so, for gradients that are checked against finite differences.
    """
    import torch

    dtype = torch.promote_types(torch.promote_types(queries.dtype, documents.dtype), torch.float32)
    products = torch.einsum("qid,njd->qnij", queries.to(dtype), documents.to(dtype))
    if document_mask is not None:
        products = products.masked_fill(~document_mask.bool()[None, :, None, :], -torch.inf)
    best = products.amax(dim=3)
    if query_mask is not None:
        best = best.masked_fill(~query_mask.bool()[:, None, :], 0.0)
    return best.sum(dim=2)
