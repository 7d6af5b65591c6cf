"""The search among vectors in Arrow batches, against a search that sorts all scores."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_instructor import top_k
from spark_instructor.top_k import TopK, find_similar_pairs, read_vectors


def draw_vectors(seed, rows, width=8):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def make_cells(vectors, type_=None):
    return pa.array(vectors, type_ or pa.list_(pa.float32()))


@given(
    queries=st.integers(0, 6),
    sizes=st.lists(st.integers(0, 12), max_size=5),
    k=st.integers(1, 9),
    block=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_top_k(queries, sizes, k, block, seed):
    """Whatever the sizes of batches and blocks are, the k best rows per query are kept, best first."""
    asked, vectors = draw_vectors(seed, queries), draw_vectors(seed + 1, sum(sizes))
    top = TopK(asked, k)
    start = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_k, "_SCORES_PER_BLOCK", block)
        for size in sizes:
            ordinals = pa.table({"ordinal": pa.array(range(start, start + size), pa.int64())})
            top.add(vectors[start : start + size], ordinals)
            start += size
    scores = asked @ vectors.T
    expected = np.argsort(-scores, axis=1)[:, :k]
    if not expected.size:
        assert top.rows is None
        return
    found = top.rows["ordinal"].to_numpy().reshape(queries, -1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(top.query_of, np.repeat(np.arange(queries), min(k, len(vectors))))
    np.testing.assert_allclose(top.scores, np.take_along_axis(scores, expected, 1).ravel(), atol=1e-5)


def test_equal_scores():
    """Exactly k rows are kept even if more rows have the same score."""
    top = TopK(np.ones((2, 4), np.float32), 3)
    for _ in range(3):
        top.add(np.ones((2, 4), np.float32), pa.table({"id": [1, 2]}))
    assert top.query_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert top.scores.tolist() == [4.0] * 6


@given(rows=st.integers(0, 15), others=st.integers(0, 15), block=st.integers(1, 40), seed=st.integers(0, 99))
def test_similar_pairs(rows, others, block, seed):
    left, right = draw_vectors(seed, rows), draw_vectors(seed + 1, others)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_k, "_SCORES_PER_BLOCK", block)
        between = {(i, j) for a, b, _ in find_similar_pairs(left, right, 0.5) for i, j in zip(a, b, strict=True)}
        within = [(i, j) for a, b, _ in find_similar_pairs(left, None, 0.5) for i, j in zip(a, b, strict=True)]
    assert between == set(zip(*np.nonzero(left @ right.T >= 0.5), strict=True))
    assert sorted(within) == sorted(zip(*np.nonzero(np.triu(left @ left.T >= 0.5, 1)), strict=True))


def test_read_vectors():
    """Nulls and zeros are left out, doubles are read, and vectors are scaled for the cosine."""
    cells = make_cells([[3.0, 4.0], None, [0.0, 0.0], [0.0, -2.0]], pa.list_(pa.float64()))
    vectors, rows = read_vectors(cells, {}, "vector", "cosine")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, -1]])
    assert rows.tolist() == [0, 3]
    vectors, rows = read_vectors(cells, {}, "vector", "inner_product")
    np.testing.assert_allclose(vectors, [[3, 4], [0, 0], [0, -2]])
    assert rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize("cells", [[], [None, None]])
def test_read_no_vectors(cells):
    vectors, rows = read_vectors(make_cells(cells), {}, "vector", "cosine")
    assert (len(vectors), len(rows)) == (0, 0)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[1.0, 2.0], [1.0]], "column 'vector' has vectors of different widths: 1, 2"),
        ([[1.0, float("nan")]], "column 'vector' has a vector that contains NaN"),
        ([[1.0, float("inf")]], "column 'vector' has a vector that contains NaN, infinity"),
        ([[1.0, None]], "column 'vector' has a vector that contains NaN, infinity or null"),
    ],
)
def test_vectors_that_cannot_be_compared(cells, message):
    with pytest.raises(ValueError, match=message):
        read_vectors(make_cells(cells), {}, "vector", "cosine")


def test_other_width():
    with pytest.raises(ValueError, match="the vectors have 3 floats and the queries 2"):
        TopK(np.ones((1, 2), np.float32), 1).add(np.ones((1, 3), np.float32), pa.table({"id": [1]}))
