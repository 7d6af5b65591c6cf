"""Exact nearest neighbors among the vectors of DataFrames, on the executors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, LongType, StructField, StructType

from .columns import column, find_field, get_output_type, match_names
from .provenance import check_same_model, get_provenance
from .stages.params import AtLeast
from .top_k import METRICS, TopK, find_similar_pairs, read_vectors, take_rows
from .udf import on_executor

RANK, SCORE = "rank", "score"
LEFT, RIGHT = "left", "right"

_QUERY, _PAIR, _BLOCK = "__query", "__pair", "__block"
_BYTES_PER_PASS = 1 << 26  # of queries: they are sent to every task, and a Connect server takes messages of 128 MB
_ROWS_PER_BLOCK = 20_000
_ROWS_PER_BATCH = 1000


def nearest(
    queries: DataFrame,
    passages: DataFrame,
    k: int = 10,
    *,
    query_vector: str = "vector",
    passage_vector: str = "vector",
    metric: str = "cosine",
    check_model: bool = True,
) -> DataFrame:
    """Return the ``k`` passages whose vectors are most similar to the vector of each query.

    The search is exact. The driver collects the queries and sends them to the tasks; each task compares its passages
    with all queries in one matrix product per block, and keeps ``k`` rows per query. Only these rows are shuffled, so
    there may be any number of passages. More than 64 MB of queries (43,000 vectors of 384 floats) are compared in
    several passes over the passages. Write the vectors to a table first: otherwise each pass embeds the passages again.

    Args:
        queries: The queries, with vectors in any type that `InstructorEmbeddings` gives, or in ``array<double>``. They
            must fit in the memory of the driver.
        passages: The rows to search in, with vectors of the same dimension. The two columns may have different types of
        vectors.
        k: The maximum number of passages per query. A query gets fewer if there are fewer passages.
        query_vector: Name of the column with the vectors of the queries.
        passage_vector: Name of the column with the vectors of the passages.
        metric: "cosine" or "inner_product", as in Spark 4.3's ``vector_cosine_similarity`` and
            ``vector_inner_product``. For unit vectors, as `InstructorEmbeddings` returns them, both give the same
            score.
        check_model: Whether to fail if the metadata of the two columns says that different models embedded them.

    Returns:
        One row per hit, in no particular order: the columns of the query, the columns of the passage, ``rank`` (int,
        from 1) and ``score`` (float, higher is more similar). The two vectors are left out. A query without a vector
        has no hits, and a passage without a vector is never found; with the cosine, the same holds for vectors of
        zeros. Which of several passages with equal scores is returned is not defined.

    Raises ValueError on the driver if ``k`` is less than 1, if the metric is unknown, if a column is missing or
    contains no vectors, if the queries and the passages have a column of the same name, and if different models
    embedded them. The job fails if vectors differ in width or contain NaN.
    """
    k = AtLeast("k", 1)(k)
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, expected one of {', '.join(METRICS)}")
    asked, query_fields = _split_fields(queries, query_vector, "queries")
    searched, passage_fields = _split_fields(passages, passage_vector, "passages")
    if check_model:
        check_same_model(
            get_provenance(asked.metadata),
            get_provenance(searched.metadata),
            f"column {asked.name!r} of the queries",
            f"column {searched.name!r} of the passages",
            "Embed both with the same model and precision, or pass check_model=False",
        )
    owners = dict.fromkeys((RANK, SCORE, _QUERY), "result")
    for owner, fields in (("queries", query_fields), ("passages", passage_fields)):
        for field in fields:
            for other in match_names(owners, field.name, queries.sparkSession):
                raise ValueError(
                    f"nearest: column {field.name!r} of the {owner} is also a column of the {owners[other]}; rename or "
                    f"drop it: {owner}.withColumnRenamed({field.name!r}, ...)"
                )
        owners |= {field.name: owner for field in fields}

    schema = StructType([*query_fields, *passage_fields]).add(SCORE, FloatType()).add(_QUERY, LongType())
    arguments = {"k": k, "metric": metric, "asked": _describe_vectors(asked), "searched": _describe_vectors(searched)}
    hits = [
        passages.mapInArrow(
            on_executor("neighbors.find_hits", {**arguments, "first_query": first, "queries": streams}), schema
        )
        for first, streams in _collect_passes(queries)
    ]
    by_score = Window.partitionBy(_QUERY).orderBy(F.desc(SCORE))
    all_hits = reduce(lambda left, right: left.union(right), hits)
    ranked = all_hits.withColumn(RANK, F.row_number().over(by_score)).where(column(RANK) <= k)
    names = [field.name for field in (*query_fields, *passage_fields)]
    return ranked.select(*map(column, names), RANK, SCORE)


def near_duplicates(df: DataFrame, threshold: float, *, key: str, vector: str = "vector") -> DataFrame:
    """Return all pairs of rows whose vectors have a cosine similarity of at least ``threshold``, each pair once.

    The search is exact: it compares every row with every other one, in blocks of about 20,000 rows. Each row is
    therefore shuffled once per block, and the time grows with the square of the number of rows. The DataFrame is read
    twice, once to count its rows; write the vectors to a table first.

    Args:
        df: The rows, with vectors in any type that `InstructorEmbeddings` gives, or in ``array<double>``.
        threshold: The minimum cosine similarity, -1 to 1. Scores are rounded like float32, so use 0.999999 rather than
            1 to find equal texts.
        key: Name of a column that identifies a row.
        vector: Name of the column with the vectors.

    Returns:
        One row per pair, in no particular order: ``left`` and ``right``, the keys of the two rows, and ``score``
        (float). Rows without a vector and with a vector of zeros belong to no pair.

    Raises ValueError on the driver if the threshold is not in that range, if a column is missing or contains no
    vectors, and if the key is the vector. The job fails if vectors differ in width or contain NaN.
    """
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected a cosine similarity from -1 to 1")
    key_field = find_field(df, key, "near_duplicates")
    vector_field, _ = _split_fields(df, vector, "near_duplicates")
    if key_field.name == vector_field.name:
        raise ValueError(f"near_duplicates: column {key_field.name!r} is both the key and the vector")
    blocks = max(-(-df.count() // _ROWS_PER_BLOCK), 1)
    block = F.pmod(F.xxhash64(column(key)), F.lit(blocks))
    # A task compares a pair of blocks, so each row goes to all pairs that its block belongs to.
    all_blocks = F.sequence(F.lit(0).cast("long"), F.lit(blocks - 1).cast("long"))
    pairs = F.transform(all_blocks, lambda other: F.least(block, other) * blocks + F.greatest(block, other))
    rows = df.select(
        column(key_field.name), column(vector_field.name), block.alias(_BLOCK), F.explode(pairs).alias(_PAIR)
    )
    grouped = rows.repartition(blocks * (blocks + 1) // 2, _PAIR).sortWithinPartitions(_PAIR)
    schema = StructType([StructField(name, key_field.dataType) for name in (LEFT, RIGHT)]).add(SCORE, FloatType())
    arguments = {
        "key": key_field.name,
        "vectors": _describe_vectors(vector_field),
        "blocks": blocks,
        "threshold": threshold,
    }
    return grouped.mapInArrow(on_executor("neighbors.find_pairs", arguments), schema)


def find_hits(arguments: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Do what a task does for `nearest`: yield the best rows of its partition for each query."""
    if not arguments["queries"]:
        return
    asked, searched, metric = (arguments[name] for name in ("asked", "searched", "metric"))
    queries = pa.concat_tables(pa.ipc.open_stream(stream).read_all() for stream in arguments["queries"])
    (query_batch,) = queries.combine_chunks().to_batches()
    vectors, query_rows = read_vectors(query_batch.column(asked["name"]), **asked, metric=metric)
    top = TopK(vectors, arguments["k"])
    for batch in batches:
        vectors, rows = read_vectors(batch.column(searched["name"]), **searched, metric=metric)
        top.add(vectors, take_rows(batch, searched["name"], rows))
    if top.rows is not None:
        query_of = query_rows[top.query_of]
        found_queries = take_rows(query_batch, asked["name"], query_of)
        columns = {
            name: values
            for rows, vector in ((found_queries, asked["name"]), (top.rows, searched["name"]))
            for name, values in zip(rows.column_names, rows.columns, strict=True)
            if name != vector
        }
        columns |= {SCORE: pa.array(top.scores), _QUERY: pa.array(query_of + arguments["first_query"])}
        yield from pa.table(columns).combine_chunks().to_batches(_ROWS_PER_BATCH)


def find_pairs(arguments: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Do what a task does for `near_duplicates`: yield the similar pairs of each pair of blocks.

    The rows come sorted by pair of blocks.
    """
    described = arguments["vectors"]
    for pair, runs in groupby(_split_into_runs(batches), itemgetter(0)):
        (batch,) = pa.Table.from_batches([run for _, run in runs]).combine_chunks().to_batches()
        vectors, rows = read_vectors(batch.column(described["name"]), **described, metric="cosine")
        keys = batch.column(arguments["key"]).take(pa.array(rows))
        block_of = batch.column(_BLOCK).to_numpy()[rows]
        first, second = divmod(pair, arguments["blocks"])
        left, right = (np.flatnonzero(block_of == block) for block in (first, second))
        others = None if first == second else vectors[right]
        for i, j, scores in find_similar_pairs(vectors[left], others, arguments["threshold"]):
            columns = [keys.take(pa.array(left[i])), keys.take(pa.array(right[j])), pa.array(scores)]
            yield pa.RecordBatch.from_arrays(columns, [LEFT, RIGHT, SCORE])


def serialize(_: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pack rows into binaries, so that they reach the driver with the types that Spark gave them, and quickly."""
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_PER_BATCH):
            part = batch.slice(start, _ROWS_PER_BATCH)
            with pa.BufferOutputStream() as sink, pa.ipc.new_stream(sink, part.schema) as writer:
                writer.write_batch(part)
            yield pa.RecordBatch.from_pydict({"rows": [part.num_rows], "content": [sink.getvalue().to_pybytes()]})


def _split_fields(df: DataFrame, vector: str, reader: str) -> tuple[StructField, list[StructField]]:
    """Return the field of the vectors and the other fields; raise ValueError if there are no vectors."""
    vector_field = find_field(df, vector, reader)
    get_output_type(vector_field, reader)
    return vector_field, [field for field in df.schema.fields if field.name != vector_field.name]


def _describe_vectors(field: StructField) -> dict[str, Any]:
    """Return what `read_vectors` has to know about a column."""
    return {"name": field.name, "metadata": dict(field.metadata or {})}


def _collect_passes(queries: DataFrame) -> list[tuple[int, list[bytes]]]:
    """Return, for each pass over the passages, the ordinal of its first query and its queries as Arrow streams."""
    passes: list[tuple[int, list[bytes]]] = [(0, [])]
    rows = size = 0
    for row in queries.mapInArrow(on_executor("neighbors.serialize", {}), "rows long, content binary").collect():
        if size and size + len(row.content) > _BYTES_PER_PASS:
            passes.append((rows, []))
            size = 0
        passes[-1][1].append(bytes(row.content))
        rows, size = rows + row.rows, size + len(row.content)
    return passes


def _split_into_runs(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cut batches into runs of rows of the same pair of blocks; yield each with its pair."""
    for batch in batches:
        pairs = batch.column(_PAIR).to_numpy()
        ends = [*(np.flatnonzero(np.diff(pairs)) + 1).tolist(), len(pairs)]
        for start, end in pairwise([0, *ends] if len(pairs) else []):
            yield int(pairs[start]), batch.slice(start, end - start)
