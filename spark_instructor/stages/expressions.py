"""Column expressions of the stages that have a UDF: what the UDF receives, and what becomes of its result."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructField

from ..columns import empty_array, read_column
from ..udf import to_ml_vector
from ..worker import DISTINCT, SECONDS, TOKENS, TRUNCATED, UNKNOWN, VECTORS, name_result
from .annotation import ANNOTATION, ANNOTATIONS, METADATA, SENTENCE_EMBEDDINGS, is_annotations

_MAX_ROW_BYTES = 1 << 30  # of the vectors of a row; Spark cannot hold a row of 2 GB
_CHARACTERS_PER_WORD = 12  # more than in English or German, so that the beginning of a long text has enough words


def utf16_length(text: Column) -> Column:
    """Return the length of a string column in UTF-16 units, as Java counts."""
    return (F.octet_length(F.encode(text, "UTF-16BE")) / 2).cast("int")


def compute_once(dataset: DataFrame, expression: Column, prefix: str) -> tuple[DataFrame, str, str]:
    """Append the result of a UDF so that Spark computes it once per row, and return the names of two new columns.

    The first holds the result. The second is always true, but Spark does not know that: every expression of the result
    that leaves the stage needs it as a guard. Spark pushes a filter on a projected column below the projection, so it
    would compute the UDF twice, for the filter and for the output. It cannot push a filter below the explode whose
    column the filter needs. A filter on other columns still goes below both, and an unused UDF is still pruned.
    """
    result, once = f"{prefix}__result", f"{prefix}__once"
    rows = dataset.select("*", expression.alias(result))
    return rows.select("*", F.explode(F.array(F.lit(True))).alias(once)), result, once


def find_error(fields: Sequence[StructField], dimension: int) -> Column:
    """Return why a row cannot be embedded, or null if it can; the fields are those of texts and of instructions."""
    max_texts = _MAX_ROW_BYTES // (4 * dimension)
    errors = []
    for field in fields:
        texts = read_column(field)
        if isinstance(field.dataType, ArrayType):
            says = (F.lit(f"column {field.name!r} has "), F.size(texts), F.lit(f" texts, expected at most {max_texts}"))
            errors.append(F.when(F.size(texts) > max_texts, F.concat(*says)))
            cells = F.transform(texts, lambda text: text["result"]) if is_annotations(field) else texts
            is_text = F.forall(cells, _is_utf8)
        else:
            is_text = _is_utf8(texts)
        errors.append(F.when(~is_text, F.lit(f"column {field.name!r} has bytes that are not UTF-8")))
    return F.coalesce(*errors)


def _is_utf8(text: Column) -> Column:
    if hasattr(F, "is_valid_utf8"):  # Spark 4
        return F.is_valid_utf8(text)
    content = text.cast("binary")
    return F.encode(F.decode(content, "UTF-8"), "UTF-8") == content


def select_texts(field: StructField, max_tokens: int) -> Column:
    """Return what the UDF receives of an input column: the texts without the rest of their annotations.

    ``max_tokens`` is the number of tokens that the model reads of a text at most; see `cut_text`.
    """
    if is_annotations(field):
        return F.transform(_filter_nonempty(field), lambda annotation: cut_text(annotation["result"], max_tokens))
    if isinstance(field.dataType, ArrayType):
        return F.transform(read_column(field), lambda text: cut_text(text, max_tokens))
    return cut_text(read_column(field), max_tokens)


def cut_text(text: Column, max_tokens: int) -> Column:
    """Return the beginning of a long text if it has more than ``max_tokens`` tokens, and else the text.

    Spark need not send the rest to Python, since it cannot change the vector. A word has at least one token, and the
    tokens of a word do not depend on the words after it. So a beginning with more than ``max_tokens`` words is enough.
    A text whose beginning has fewer, such as one without blanks, stays whole; the encoder then finds out how much of
    it to read.
    """
    characters = max_tokens * _CHARACTERS_PER_WORD
    beginning = F.left(text, F.lit(characters))
    # Only words with such an end count, since the tokenizer removes some characters, and a word may consist of them.
    words = F.regexp_count(beginning, F.lit(r"[A-Za-z0-9][ \t\r\n]"))
    return F.when((F.length(text) > characters) & (words > max_tokens), beginning).otherwise(text)


def build_output(field: StructField, result: Column, guard: Column, index: int, output_type: str) -> Column:
    """Return the output column for input column number ``index``.

    ``result`` is the struct that the UDF returns, and ``guard`` the column that is always true; see `compute_once`.
    """
    vectors = result[name_result(VECTORS, index)]
    if not is_annotations(field):
        if output_type == "vector":
            is_nested = isinstance(field.dataType, ArrayType)
            vectors = F.transform(vectors, to_ml_vector) if is_nested else to_ml_vector(vectors)
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
        "unknown": result[UNKNOWN],
        "truncated": F.size(F.filter(truncated, lambda flag: flag)),
        "distinct": result[DISTINCT],
    }
    sums = [F.coalesce(F.sum(count), F.lit(0)).alias(name) for name, count in per_row.items()]
    seconds = F.coalesce(F.sum(result[SECONDS]), F.lit(0.0)).alias("seconds")
    return [F.count(F.lit(1)).alias("rows"), *sums, seconds]


def _filter_nonempty(field: StructField) -> Column:
    """Return the annotations of a column that have a text."""
    return F.filter(read_column(field), lambda annotation: F.coalesce(F.length(annotation["result"]) > 0, F.lit(False)))
