"""INSTRUCTOR in expressions: a column function, its registration for SQL, and cosine similarity."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from .columns import column, find_field
from .provenance import check_same_model, get_provenance
from .stages.embeddings import InstructorEmbeddings
from .udf import convert_vectors as convert_column
from .udf import create_expression_udf
from .vectors import DIMENSION, OUTPUT_TYPE, OUTPUT_TYPES, describe_type

_COLUMN_PARAMS = ("inputCols", "outputCol", "outputCols", "instructionCol")
_STAGE_PARAMS = {"outputType": "float", "errorCol": None, "distinct": False}
"""Params that only a stage can follow, with the values that ask for nothing."""


def instructor_embed(
    col: Column | str, instruction: Column | str | None = None, model: str = "instructor_base", **settings: Any
) -> Column:
    """Return the vectors (``array<float>``) of a string column, as `InstructorEmbeddings` computes them.

    A null text gives a null vector. Spark computes an expression wherever it occurs: if you select it and filter by
    it, Spark computes it twice, and two such expressions run in two Python workers, each with its own model.
    `InstructorEmbeddings` avoids both, and so does a DataFrame that you have written or cached.

    Args:
        col: Column of the texts.
        instruction: One instruction for all rows, or a column with the instruction of each row.
        model: Known name, hub id or folder of the checkpoint.
        **settings: Other Params of `InstructorEmbeddings` by name (``precision``, ``maxSentenceLength``,
            ``sharedFolder`` and so on).

    Raises TypeError if a setting does not exist, names columns, or asks for more than a vector per row as
    ``array<float>``, and what `InstructorEmbeddings.transform` raises.
    """
    spark = SparkSession.active()
    if instruction is None or isinstance(instruction, str):
        embedded: Column = _create_udf(spark, model=model, instruction=instruction, **settings)(col)
    else:
        embedded = _create_udf(spark, model=model, **settings)(col, instruction)
    return embedded


def register_instructor_embed(
    spark: SparkSession,
    name: str = "instructor_embed",
    instruction: str | None = None,
    model: str = "instructor_base",
    **settings: Any,
) -> None:
    """Register a SQL function: ``name(text)``, or ``name(text, instruction)`` if a row has its own instruction.

    Spark computes the function wherever it occurs, as in `instructor_embed`: ``SELECT embed(t) ... WHERE
    f(embed(t))`` computes it twice, so select it in a subquery that is cached or written. A literal is embedded once
    per Arrow batch of the rows beside it.

    Args:
        spark: The session in which the function is registered.
        name: Name of the function in SQL.
        instruction: The instruction of calls with one argument. In calls with two, a null is an empty instruction.
        model: Known name, hub id or folder of the checkpoint.
        **settings: Other Params of `InstructorEmbeddings` by name.

    Raises TypeError if a setting does not exist, names columns, or asks for more than a vector per row as
    ``array<float>``, and what `InstructorEmbeddings.transform` raises.
    """
    spark.udf.register(name, _create_udf(spark, model=model, instruction=instruction, **settings))


def cosine_similarity(left: Column | str, right: Column | str, *, df: DataFrame | None = None) -> Column:
    """Return the cosine similarity (float) of two ``array<float>`` columns; null for a null or a zero vector.

    This is ``vector_cosine_similarity`` of Spark 4.3, and an expression with the same values on earlier versions. In
    SQL before 4.3, you can write this for unit vectors, as `InstructorEmbeddings` returns them:
    ``aggregate(zip_with(a, b, (x, y) -> double(x * y)), 0D, (total, product) -> total + product)``.

    Args:
        left: A column of vectors.
        right: Another column of vectors.
        df: The DataFrame that has the columns. If you pass it, give the columns by their names. An expression alone
            does not see which models embedded its columns and what their binaries contain, but the metadata in the
            schema of a DataFrame says so.

    Raises ValueError if ``df`` says that different models embedded the columns. The job fails if two vectors differ in
    width.
    """
    if df is not None:
        _check_same_model(df, left, right)
        left, right = (
            convert_column(find_field(df, str(name), "cosine_similarity"), "float", "cosine_similarity")
            for name in (left, right)
        )
    if hasattr(F, "vector_cosine_similarity"):
        return F.vector_cosine_similarity(left, right)
    left, right = (F.col(vector) if isinstance(vector, str) else vector for vector in (left, right))
    norms = F.sqrt(_dot(left, left)) * F.sqrt(_dot(right, right))
    cosine = (_dot(left, right) / F.when(norms > 0, norms)).cast("float")
    return F.when(
        F.array_size(left) != F.array_size(right), F.raise_error("vectors of different widths").cast("float")
    ).otherwise(cosine)


def convert_vectors(df: DataFrame, output_type: str, *, vector: str = "vector") -> DataFrame:
    """Return a DataFrame with the vectors of a column in another output type, in the same place.

    Args:
        df: The rows, with vectors in any output type or in ``array<double>``.
        output_type: "float", "vector", "half", "int8" or "binary"; see `InstructorEmbeddings.setOutputType`. What a
            smaller type has lost does not come back: "float" gives the rounded values, and vectors that were "int8" or
            "binary" are scaled to length 1.
        vector: Name of the column with the vectors.

    Raises ValueError if the type is unknown, if the column is missing or holds no vectors, if two columns have the same
    name, and if "binary" is asked for vectors of an unknown dimension. For "int8" and "binary", the job fails if a
    vector contains NaN, infinity or null.
    """
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {output_type!r}, expected one of {', '.join(OUTPUT_TYPES)}")
    field = find_field(df, vector, "convert_vectors")
    metadata = {key: value for key, value in (field.metadata or {}).items() if key != OUTPUT_TYPE}
    if output_type == "binary" and DIMENSION not in metadata:
        raise ValueError(
            f"convert_vectors: the metadata of column {field.name!r} does not say how many floats a vector has; add it "
            f"with df.withMetadata({field.name!r}, {{'{DIMENSION}': 768}})"
        )
    converted = convert_column(field, output_type, "convert_vectors")
    converted = converted.alias(field.name, metadata={**metadata, **describe_type(output_type)})
    names = [find_field(df, name, "convert_vectors").name for name in df.columns]
    return df.select(*(converted if name == field.name else column(name) for name in names))


def _check_same_model(df: DataFrame, *vector_cols: Column | str) -> None:
    for name in vector_cols:
        if not isinstance(name, str):
            raise TypeError(f"cosine_similarity: with df, name the columns; {name} is an expression, not a name")
    left, right = (find_field(df, str(name), "cosine_similarity") for name in vector_cols)
    check_same_model(
        get_provenance(left.metadata),
        get_provenance(right.metadata),
        f"column {left.name!r}",
        f"column {right.name!r}",
        "Embed both with the same model and precision",
    )


def _dot(left: Column, right: Column) -> Column:
    products = F.zip_with(left, right, lambda x, y: x.cast("double") * y)
    return F.aggregate(products, F.lit(0.0), lambda total, product: total + product)


def _create_udf(spark: SparkSession, **settings: Any) -> Any:
    for name in _COLUMN_PARAMS:
        if name in settings:
            raise TypeError(
                f"{name} is {settings[name]!r}, but a function takes its columns as arguments: the texts first and, if "
                "the rows have their own instructions, the instructions second"
            )
    for name, default in _STAGE_PARAMS.items():
        if settings.get(name, default) != default:
            raise TypeError(
                f"{name} is {settings[name]!r}, but a function returns nothing but the vector of each row, as "
                "array<float>; use InstructorEmbeddings"
            )
    stage = InstructorEmbeddings(**settings)
    return create_expression_udf(stage.ship_job(spark, stage.prepare_model()))
