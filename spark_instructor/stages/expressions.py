"""Column expressions of `InstructorEmbeddings`: what the UDF receives, and what becomes of its result."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructField

from ..columns import empty_array, read_column
from ..worker import DISTINCT, SECONDS, TOKENS, TRUNCATED, VECTORS, name_result
from .annotation import ANNOTATION, ANNOTATIONS, METADATA, SENTENCE_EMBEDDINGS, is_annotations


def utf16_length(text: Column) -> Column:
    """Return the length of a string column in UTF-16 units, as Java counts."""
    return (F.octet_length(F.encode(text, "UTF-16BE")) / 2).cast("int")


def select_texts(field: StructField) -> Column:
    """Return what the UDF receives of an input column: the texts without the rest of their annotations."""
    if is_annotations(field):
        return F.transform(_filter_nonempty(field), lambda annotation: annotation["result"])
    return read_column(field)


def build_output(field: StructField, result: Column, guard: Column, index: int) -> Column:
    """Return the output column for input column number ``index``.

    ``result`` is the struct that the UDF returns. ``guard`` is always true, but Spark does not know that: see
    `InstructorEmbeddings`.
    """
    vectors = result[name_result(VECTORS, index)]
    if not is_annotations(field):
        return F.when(guard, vectors)
    tokens, truncated = result[name_result(TOKENS, index)], result[name_result(TRUNCATED, index)]

    def build_annotation(annotation: Column, i: Column) -> Column:
        no_metadata = F.create_map().cast(METADATA)
        inherited = F.map_filter(
            F.coalesce(annotation["metadata"], no_metadata), lambda key, _: ~key.isin(TOKENS, TRUNCATED)
        )
        counts = F.create_map(F.lit(TOKENS), F.get(tokens, i).cast("string"))
        flag = F.when(F.get(truncated, i), F.create_map(F.lit(TRUNCATED), F.lit("true"))).otherwise(no_metadata)
        return F.struct(
            F.lit(SENTENCE_EMBEDDINGS).alias("annotatorType"),
            # The cast to the full type needs columns that cannot be null; after Parquet, Spark does not know that.
            F.coalesce(annotation["begin"], F.lit(0)).alias("begin"),
            F.coalesce(annotation["end"], utf16_length(annotation["result"]) - 1, F.lit(-1)).alias("end"),
            annotation["result"].alias("result"),
            F.map_concat(inherited, counts, flag).alias("metadata"),
            F.get(vectors, i).alias("embeddings"),
        )

    annotations = F.transform(_filter_nonempty(field), build_annotation).cast(ANNOTATIONS)
    return F.when(guard, annotations).otherwise(
        empty_array(F.lit(None).cast(ANNOTATION))
    )  # nullable only if the input is


def sum_metrics(fields: list[StructField], result: Column) -> list[Column]:
    """Return the aggregates that `InstructorEmbeddings.observe` reports, computed from the UDF's struct."""

    def concat_counts(name: str) -> Column:
        """Return the counts of a row's texts in one array; a null text or a null array of texts is a null in it."""
        arrays = []
        for index, field in enumerate(fields):
            count = result[name_result(name, index)]
            is_array = isinstance(field.dataType, ArrayType)
            arrays.append(F.when(count.isNull(), F.array(F.lit(None))).otherwise(count) if is_array else F.array(count))
        return F.concat(*arrays)

    tokens, truncated = concat_counts(TOKENS), concat_counts(TRUNCATED)
    per_row = {
        "nulls": F.size(F.filter(tokens, lambda count: count.isNull())),
        "texts": F.size(F.filter(tokens, lambda count: count.isNotNull())),
        "tokens": F.aggregate(tokens, F.lit(0), lambda total, count: total + F.coalesce(count, F.lit(0))),
        "truncated": F.size(F.filter(truncated, lambda flag: flag)),
        "distinct": result[DISTINCT],
    }
    sums = [F.coalesce(F.sum(count), F.lit(0)).alias(name) for name, count in per_row.items()]
    seconds = F.coalesce(F.sum(result[SECONDS]), F.lit(0.0)).alias("seconds")
    return [F.count(F.lit(1)).alias("rows"), *sums, seconds]


def _filter_nonempty(field: StructField) -> Column:
    """Return the annotations of a column that have a text."""
    return F.filter(read_column(field), lambda annotation: F.coalesce(F.length(annotation["result"]) > 0, F.lit(False)))
