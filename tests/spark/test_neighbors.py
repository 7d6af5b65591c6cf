"""Nearest neighbors and near duplicates, against numpy on the driver."""

import datetime
import decimal

import numpy as np
import pytest
from pyspark.sql import functions as F

from spark_instructor.neighbors import near_duplicates, nearest

WIDTH = 6
QUERY_SCHEMA = "question string, vector array<float>"
PASSAGE_SCHEMA = (
    "id long, text string, price decimal(9,2), day date, seen timestamp, tags array<string>, place struct<x:int>, "
    "vector array<float>"
)


def draw_vectors(seed, rows):
    return np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)


def make_passages(spark, vectors, partitions):
    rows = [
        (
            i,
            f"text {i}",
            decimal.Decimal(i),
            datetime.date(2026, 1, 1) + datetime.timedelta(i),
            datetime.datetime(2026, 1, 1, 12) + datetime.timedelta(hours=i),
            [f"tag {i}"],
            (i,),
            vector,
        )
        for i, vector in enumerate(vectors)
    ]
    return spark.createDataFrame(rows, PASSAGE_SCHEMA).repartition(partitions)


def to_cells(vectors):
    return [vector.tolist() for vector in vectors]


def rank_by_hand(queries, passages, k):
    """Return (query, rank, passage, cosine) of the k nearest passages of each query."""
    scores = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        passages / np.linalg.norm(passages, axis=1)[:, None]
    ).T
    return [
        (query, rank, passage, scores[query, passage])
        for query in range(len(queries))
        for rank, passage in enumerate(np.argsort(-scores[query])[:k], 1)
    ]


@pytest.mark.parametrize(("k", "partitions"), [(1, 1), (4, 3), (50, 7)])
def test_nearest(spark, k, partitions):
    """Whatever the partitions are, each query gets its k passages (or all, if there are fewer) with their columns."""
    asked, vectors = draw_vectors(0, 5), draw_vectors(1, 40)
    queries = spark.createDataFrame([(str(i), cell) for i, cell in enumerate(to_cells(asked))], QUERY_SCHEMA)
    passages = make_passages(spark, to_cells(vectors), partitions)
    found = nearest(queries.repartition(2), passages, k)
    assert found.columns == ["question", "id", "text", "price", "day", "seen", "tags", "place", "rank", "score"]
    rows = sorted(found.collect(), key=lambda row: (int(row.question), row.rank))
    expected = rank_by_hand(asked, vectors, k)
    assert [(int(row.question), row.rank, row.id) for row in rows] == [case[:3] for case in expected]
    np.testing.assert_allclose([row.score for row in rows], [case[3] for case in expected], atol=1e-6)
    by_id = {row.id: row for row in passages.drop("vector").collect()}
    assert all(row[1:8] == tuple(by_id[row.id]) for row in rows)


def test_passes(spark, monkeypatch):
    """Queries over the limit of a pass are compared in several passes, with the same result."""
    monkeypatch.setattr("spark_instructor.neighbors._BYTES_PER_PASS", 1000)
    monkeypatch.setattr("spark_instructor.neighbors._ROWS_PER_BATCH", 2)
    asked, vectors = draw_vectors(2, 9), draw_vectors(3, 20)
    queries = spark.createDataFrame([(str(i), cell) for i, cell in enumerate(to_cells(asked))], QUERY_SCHEMA)
    rows = nearest(queries, make_passages(spark, to_cells(vectors), 2), 3).collect()
    found = sorted((int(row.question), row.rank, row.id) for row in rows)
    assert found == [case[:3] for case in rank_by_hand(asked, vectors, 3)]


def test_nulls_and_zeros(spark):
    zero = [0.0] * WIDTH
    one = [1.0] * WIDTH
    queries = spark.createDataFrame([("none", None), ("zero", zero), ("one", one)], QUERY_SCHEMA)
    passages = make_passages(spark, [None, one, zero], 2)
    found = nearest(queries, passages, 5).collect()
    assert [(row.question, row.id, row.rank) for row in found] == [("one", 1, 1)]
    found = nearest(queries, passages, 5, metric="inner_product").collect()
    assert sorted((row.question, row.id, row.score) for row in found) == [
        ("one", 1, WIDTH),
        ("one", 2, 0),
        ("zero", 1, 0),
        ("zero", 2, 0),
    ]


def test_only_vectors(spark):
    """Neither the queries nor the passages need a column beside their vectors."""
    vectors = to_cells(draw_vectors(7, 3))
    rows = spark.createDataFrame([(cell,) for cell in vectors], "vector array<float>")
    assert sorted(row.rank for row in nearest(rows, rows, 2).collect()) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(("no_queries", "no_passages"), [(True, False), (False, True)])
def test_nothing_to_compare(spark, no_queries, no_passages):
    vectors = to_cells(draw_vectors(4, 3))
    queries = spark.createDataFrame([] if no_queries else [("q", vectors[0])], QUERY_SCHEMA)
    passages = make_passages(spark, vectors, 2).where(F.lit(not no_passages))
    assert nearest(queries, passages, 2).collect() == []


def test_errors_of_nearest(spark):
    queries = spark.createDataFrame([("q", [1.0])], QUERY_SCHEMA)
    passages = make_passages(spark, [[1.0]], 1)
    with pytest.raises(ValueError, match="k is 0, expected at least 1"):
        nearest(queries, passages, 0)
    with pytest.raises(TypeError, match="Could not convert 3 to int"):
        nearest(queries, passages, "3")
    with pytest.raises(ValueError, match="metric is 'l2', expected one of cosine, inner_product"):
        nearest(queries, passages, metric="l2")
    with pytest.raises(ValueError, match="there is no column 'embedding'; the columns are 'question', 'vector'"):
        nearest(queries, passages, query_vector="embedding")
    with pytest.raises(ValueError, match="column 'text' is string, expected vectors: array<float>, array<double>, or"):
        nearest(queries, passages, passage_vector="text")
    with pytest.raises(ValueError, match=r"column 'text' of the passages is also a column of the queries; .*Renamed"):
        nearest(queries.withColumnRenamed("question", "text"), passages)
    with pytest.raises(ValueError, match="column 'rank' of the queries is also a column of the result"):
        nearest(queries.withColumnRenamed("question", "rank"), passages)
    one, other = (
        {"spark_instructor": {"model": name, "precision": "float32", "hash": name}} for name in ("one", "other")
    )
    asked = queries.select("question", F.col("vector").alias("vector", metadata=one))
    searched = passages.select("id", F.col("vector").alias("vector", metadata=other))
    with pytest.raises(
        ValueError, match=r"embedded with one in float32, .* with other in float32; .*check_model=False"
    ):
        nearest(asked, searched)
    assert nearest(asked, searched, check_model=False).count() == 1
    with pytest.raises(Exception, match="the vectors have 2 floats and the queries 1"):
        nearest(queries, make_passages(spark, [[1.0, 2.0]], 1)).collect()


def test_near_duplicates(spark, monkeypatch):
    """Each pair is found once, within a block and between blocks."""
    monkeypatch.setattr("spark_instructor.neighbors._ROWS_PER_BLOCK", 8)
    vectors = draw_vectors(5, 30)
    vectors[10:20] = vectors[:10] + 0.01 * draw_vectors(6, 10)
    passages = make_passages(spark, [*to_cells(vectors), None, [0.0] * WIDTH], 3)
    found = near_duplicates(passages, 0.9, key="text").collect()
    scores = rank_by_hand(vectors, vectors, len(vectors))
    expected = {(i, j): score for i, _, j, score in scores if i < j and score >= 0.9}
    assert len(expected) >= 10
    ids = [tuple(sorted(int(name.split()[1]) for name in (row.left, row.right))) for row in found]
    assert sorted(ids) == sorted(expected)
    np.testing.assert_allclose([row.score for row in found], [expected[pair] for pair in ids], atol=1e-6)


def test_errors_of_near_duplicates(spark):
    passages = make_passages(spark, [[1.0]], 1)
    with pytest.raises(ValueError, match="threshold is 95, expected a cosine similarity from -1 to 1"):
        near_duplicates(passages, 95, key="id")
    with pytest.raises(ValueError, match="there is no column 'key'"):
        near_duplicates(passages, 0.9, key="key")
    with pytest.raises(ValueError, match="column 'vector' is both the key and the vector"):
        near_duplicates(passages, 0.9, key="vector")
