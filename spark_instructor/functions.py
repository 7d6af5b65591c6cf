"""INSTRUCTOR in expressions: a column function, its registration for SQL, and cosine similarity."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from .stages.annotation import VECTOR
from .stages.embeddings import InstructorEmbeddings
from .worker import embedding_function

_OF_COLUMNS = ("inputCols", "outputCol", "outputCols", "instructionCol")


def instructor_embed(
    col: Column | str, instruction: Column | str = "", model: str = "instructor_base", **settings: Any
) -> Column:
    """The vectors (``array<float>``) of a string column, as `InstructorEmbeddings` gives them; null gives null.

    ``instruction`` is one for all rows, or a column. ``settings`` are other parameters of
    `InstructorEmbeddings` by their names there (``precision``, ``maxSentenceLength``, ``sharedFolder`` ...).

    An expression is computed wherever it stands: one that is selected and filtered by is computed twice, and
    two of them run in two Python workers, each with the model. `InstructorEmbeddings` has neither fault; so
    has a DataFrame that was written or cached.

    Raises TypeError for a setting that is not there or that names columns, and what
    `InstructorEmbeddings.transform` raises.
    """
    spark = SparkSession.active()
    embedded: Column = (
        _function(spark, model=model, **settings)(col, instruction)
        if isinstance(instruction, Column)
        else _function(spark, model=model, instruction=instruction, **settings)(col)
    )
    return embedded


def register(
    spark: SparkSession,
    name: str = "instructor_embed",
    instruction: str = "",
    model: str = "instructor_base",
    **settings: Any,
) -> None:
    """Register a SQL function: ``name(text)``, or ``name(text, instruction)`` where a row has its own.

    The arguments are those of `instructor_embed`. In SQL as there, ``SELECT embed(t) ... WHERE f(embed(t))``
    computes it twice: select it in a subquery that is cached or written. A literal is embedded once for each
    Arrow batch of rows it stands beside.
    """
    spark.udf.register(name, _function(spark, model=model, instruction=instruction, **settings))


def cosine_similarity(left: Column | str, right: Column | str) -> Column:
    """Cosine similarity (float) of two ``array<float>`` columns; null for a null or a zero vector.

    It is Spark 4.3's ``vector_cosine_similarity``, and before that an expression of the same values. In SQL
    before 4.3, for unit vectors as ours are:
    ``aggregate(zip_with(a, b, (x, y) -> double(x * y)), 0D, (total, one) -> total + one)``.

    The job fails where two vectors are not of the same width.
    """
    if hasattr(F, "vector_cosine_similarity"):
        return F.vector_cosine_similarity(left, right)
    left, right = (F.col(one) if isinstance(one, str) else one for one in (left, right))
    lengths = F.sqrt(_dot(left, left)) * F.sqrt(_dot(right, right))
    cosine = (_dot(left, right) / F.when(lengths > 0, lengths)).cast("float")
    return F.when(
        F.array_size(left) != F.array_size(right), F.raise_error("vectors of different widths").cast("float")
    ).otherwise(cosine)


def _dot(left: Column, right: Column) -> Column:
    products = F.zip_with(left, right, lambda x, y: x.cast("double") * y)
    return F.aggregate(products, F.lit(0.0), lambda total, one: total + one)


def _function(spark: SparkSession, **settings: Any) -> Any:
    for name in _OF_COLUMNS:
        if name in settings:
            raise TypeError(
                f"{name} is {settings[name]!r}, but a function takes columns as its arguments: the texts first, and "
                "where rows have instructions of their own, the column of these second"
            )
    return embedding_function(InstructorEmbeddings(**settings)._shipped_job(spark), VECTOR)
