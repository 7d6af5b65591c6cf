"""errorCol: rows that cannot be embedded get the reason instead of failing the job."""

import pytest
from pyspark.sql import functions as F

from spark_instructor import DocumentAssembler, InstructorEmbeddings
from spark_instructor.stages import expressions


@pytest.fixture
def stage(tiny):
    return InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector", errorCol="error")


BROKEN = "SELECT 0 AS id, CAST(X'61FF62' AS STRING) AS text"
ROWS = f"{BROKEN} UNION ALL VALUES (1, 'a text'), (2, NULL), (3, '\ufffd'), (4, '')"
SAYS = "column {!r} has bytes that are not UTF-8"


def test_strings(spark, stage):
    rows = stage.transform(spark.sql(ROWS)).orderBy("id")
    assert rows.columns == ["id", "text", "vector", "error"]
    assert rows.schema["vector"].metadata["dimension"] == 64
    found = rows.select("id", F.col("vector").isNull().alias("is_null"), "error").collect()
    assert [row.error for row in found] == [SAYS.format("text"), None, None, None, None]
    assert [row.is_null for row in found] == [True, False, True, False, False]


def test_columns_together(spark, stage, monkeypatch):
    """One reason is enough for all outputs of a row, whichever column and kind of column it concerns."""
    monkeypatch.setattr(expressions, "_MAX_ROW_BYTES", 2 * 64 * 4)
    rows = spark.sql(ROWS).withColumn("texts", F.when(F.col("id") != 1, F.array("text")))
    rows = DocumentAssembler(inputCol="text", outputCol="document").transform(rows)
    rows = rows.withColumn("texts", F.when(F.col("id") == 4, F.array_repeat("text", 3)).otherwise(F.col("texts")))
    rows = rows.withColumn("instruction", F.when(F.col("id") == 3, F.lit(b"\xff").cast("string")))
    stage = stage.setInputCols("texts", "document").setOutputCols("a", "b").setInstructionCol("instruction")
    found = stage.transform(rows).select("id", "a", "b", "error").orderBy("id").collect()
    assert [row.error for row in found] == [
        SAYS.format("texts"),
        None,
        None,
        SAYS.format("instruction"),
        "column 'texts' has 3 texts, expected at most 2",
    ]
    assert [(row.a is None, row.b is None) for row in found] == [
        (row.id in (0, 1, 3, 4), row.error is not None) for row in found
    ]


@pytest.mark.one_kind
def test_name_of_the_column(spark, stage):
    with pytest.raises(ValueError, match="the output column 'text' exists already"):
        stage.setErrorCol("text").transform(spark.sql(BROKEN))
    with pytest.raises(ValueError, match="the output column 'vector' exists already"):
        stage.setErrorCol("vector").transform(spark.sql(BROKEN))
