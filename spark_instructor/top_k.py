"""Exact search among vectors in Arrow batches: the k most similar rows of each query, and the pairs that are similar.

This module needs only numpy and pyarrow. The driver uses it for a Parquet folder, and tasks use it for their partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .vectors import check_finite, decode_vectors

METRICS = ("cosine", "inner_product")
"""How two vectors are compared. For unit vectors, both give the same score."""

_SCORES_PER_BLOCK = 1 << 22
"""The maximum number of scores that are computed at once: 16 MB."""


def read_vectors(
    cells: pa.Array, metadata: Mapping[str, Any], name: str, metric: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the vectors of a column that can be compared, float32 (vectors, dimension), and the indices of their rows.

    Null vectors are left out, and so are vectors of zeros if the metric is the cosine, which does not exist for them.
    For the cosine, the vectors are scaled to length 1. ``metadata`` is that of the column; see `decode_vectors`.

    Raises ValueError, naming the column, if the vectors differ in width or contain NaN, infinity or null.
    """
    vectors, rows = decode_vectors(cells, metadata, name)
    norms = np.linalg.norm(vectors, axis=1)
    check_finite(norms, name)
    if metric == "cosine":
        vectors, rows, norms = vectors[norms > 0], rows[norms > 0], norms[norms > 0]
        vectors = vectors / norms[:, None]
    return vectors, rows


def take_rows(batch: pa.RecordBatch, vector_col: str, rows: npt.NDArray[np.int64]) -> pa.Table:
    """Return some rows of a batch, with nulls in place of the vectors.

    The column stays, since Arrow forgets the number of rows of a table without columns.
    """
    table = pa.Table.from_batches([batch])
    index = table.schema.get_field_index(vector_col)
    return table.set_column(index, vector_col, pa.nulls(batch.num_rows)).take(pa.array(rows))


class TopK:
    """The k rows with the highest scores for each query, among the rows that were added so far."""

    query_of: npt.NDArray[np.int64]
    """The query of each hit, ascending; at most k hits per query."""
    scores: npt.NDArray[np.float32]
    """The score of each hit; best first within a query."""
    rows: pa.Table | None
    """The row of each hit; None if no row was added."""

    def __init__(self, queries: npt.NDArray[np.float32], k: int) -> None:
        """Start without rows; ``queries`` is (queries, dimension)."""
        self._queries = queries
        self._k = k
        self._worst = np.full(len(queries), -np.inf, np.float32)  # the score that a new row must exceed
        self.query_of, self.scores, self.rows = np.empty(0, np.int64), np.empty(0, np.float32), None

    def add(self, vectors: npt.NDArray[np.float32], rows: pa.Table) -> None:
        """Compare rows with every query and keep the best; row i of ``rows`` belongs to vector i.

        Raises ValueError if the vectors and the queries differ in width.
        """
        if not len(vectors) or not len(self._queries):
            return
        if vectors.shape[1] != self._queries.shape[1]:
            raise ValueError(f"the vectors have {vectors.shape[1]} floats and the queries {self._queries.shape[1]}")
        step = max(_SCORES_PER_BLOCK // len(self._queries), 1)
        for start in range(0, len(vectors), step):
            scores = self._queries @ vectors[start : start + step].T
            query_of, row_of = self._find_candidates(scores)
            if len(query_of):
                self._keep_best(query_of, scores[query_of, row_of], rows.slice(start, step).take(pa.array(row_of)))

    def _find_candidates(self, scores: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the query and the row of each score in (queries, rows) that may be among the k best."""
        if scores.shape[1] > self._k and np.isneginf(self._worst).any():
            # As long as a query has fewer than k rows, every row would be a candidate.
            row_of = np.argpartition(scores, -self._k, axis=1)[:, -self._k :]
            return np.repeat(np.arange(len(scores)), self._k), row_of.ravel()
        query_of, row_of = np.nonzero(scores > self._worst[:, None])
        return query_of, row_of

    def _keep_best(self, query_of: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], rows: pa.Table) -> None:
        """Merge candidates into what is kept. Among equal scores, rows that were added earlier stay."""
        query_of = np.concatenate([self.query_of, query_of])
        scores = np.concatenate([self.scores, scores])
        order = np.lexsort((-scores, query_of))
        first = np.searchsorted(query_of[order], query_of[order])
        best = order[np.arange(len(order)) - first < self._k]
        self.query_of, self.scores = query_of[best], scores[best]
        all_rows = rows if self.rows is None else pa.concat_tables([self.rows, rows])
        self.rows = all_rows.take(pa.array(best)).combine_chunks()
        counts = np.bincount(self.query_of, minlength=len(self._queries))
        full = counts == self._k
        self._worst[full] = self.scores[np.cumsum(counts)[full] - 1]


def find_similar_pairs(
    left: npt.NDArray[np.float32], right: npt.NDArray[np.float32] | None, threshold: float
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield the pairs of rows of ``left`` and ``right`` whose score is at least the threshold.

    Each item has the rows of left, the rows of right, and their scores. If ``right`` is None, the pairs are those
    within ``left``, each once and none of a row with itself.
    """
    others = left if right is None else right
    step = max(_SCORES_PER_BLOCK // max(len(others), 1), 1)
    for start in range(0, len(left), step):
        scores = left[start : start + step] @ others.T
        is_similar = scores >= threshold
        if right is None:
            is_similar &= np.arange(len(others)) > np.arange(start, start + len(scores))[:, None]
        row, other = np.nonzero(is_similar)
        if len(row):
            yield row + start, other, scores[row, other]
