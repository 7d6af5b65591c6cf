"""Embedding each distinct text only once in a job: hash the texts, embed the distinct ones, and join them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructField

from ..columns import add_columns, column, read_column

_DEFAULT_TASKS = 200  # Spark's default of spark.sql.shuffle.partitions


def check_distinct(dataset: DataFrame, fields: Sequence[StructField], reader: str) -> None:
    """Raise ValueError if `embed_distinct` cannot embed these columns of a DataFrame."""
    for field in fields:
        if isinstance(field.dataType, ArrayType):
            raise ValueError(
                f"{reader}: column {field.name!r} is an array; distinct embeds string columns, so explode it first"
            )
    if dataset.isStreaming:
        raise ValueError(f"{reader}: distinct reads the rows twice, which a stream cannot do; use it in foreachBatch")


def embed_distinct(
    dataset: DataFrame,
    inputs: Sequence[StructField],
    outputs: Sequence[str],
    embed: Callable[[DataFrame], DataFrame],
    prefix: str,
) -> DataFrame:
    """Return ``embed(dataset)``, but embed each combination of inputs once.

    Args:
        dataset: The rows. They are read twice.
        inputs: The string columns that determine the outputs.
        outputs: The columns that ``embed`` adds.
        embed: Adds the outputs to a DataFrame with the inputs.
        prefix: The beginning of names that the DataFrame does not have.
    """
    key, distinct_key = f"{prefix}__key", f"{prefix}__distinct_key"
    keyed = dataset.select("*", _hash_texts(inputs).alias(key))
    names = [column(field.name) for field in inputs]
    # Without a number, Spark would merge the partitions until each has 64 MB of texts, which is hours of work.
    distinct = keyed.select(key, *names).dropDuplicates([key]).repartition(_count_tasks(dataset.sparkSession))
    embedded = embed(distinct)
    fields = [embedded.schema[name] for name in outputs]
    aliases = {name: f"{prefix}__output_{i}" for i, name in enumerate(outputs)}
    embedded = embedded.select(
        column(key).alias(distinct_key), *(column(name).alias(alias) for name, alias in aliases.items())
    )
    joined = keyed.join(embedded, column(key) == column(distinct_key), "left")
    is_missing = column(distinct_key).isNull()
    error = F.raise_error(
        F.lit("distinct: the rows were read twice and had other texts the second time; write them to a table first")
    )
    added = {
        field.name: (
            F.when(is_missing, error.cast(field.dataType)).otherwise(column(aliases[field.name])),
            field.metadata or {},
        )
        for field in fields
    }
    return add_columns(joined, added).drop(key, distinct_key, *aliases.values())


def _hash_texts(fields: Sequence[StructField]) -> Column:
    """Return a key that is equal only for rows with equal texts."""
    hashes = (F.sha2(read_column(field).cast("binary"), 256) for field in fields)
    return F.concat_ws("-", *(F.coalesce(text_hash, F.lit("null")) for text_hash in hashes))


def _count_tasks(spark: SparkSession) -> int:
    try:
        tasks = str(spark.conf.get("spark.sql.shuffle.partitions"))
    except PySparkException:  # serverless compute of Databricks hides most settings
        return _DEFAULT_TASKS
    return int(tasks) if tasks.isdecimal() else _DEFAULT_TASKS  # Databricks has "auto"
