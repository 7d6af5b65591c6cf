"""distinct: a text that repeats is embedded once over the whole job, and every row gets its vector."""

import uuid

import pytest
from pyspark.sql import Observation
from pyspark.sql import functions as F
from vectors import assert_close

from spark_instructor import InstructorEmbeddings

TEXTS = ["one", "two", None, "", "three"]


@pytest.fixture(scope="module")
def rows(spark):
    """Return 60 rows of 5 texts in 6 partitions."""
    numbered = spark.range(60, numPartitions=6)
    texts = F.array(*map(F.lit, TEXTS))
    return numbered.select("id", F.get(texts, (F.col("id") % 5).cast("int")).alias("text"))


@pytest.fixture
def stage(tiny):
    return InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector", distinct=True)


def test_every_row_gets_its_vector(rows, stage, tiny_model):
    observation = Observation()
    embedded = stage.setErrorCol("error").observe(rows, observation)
    assert embedded.columns == ["id", "text", "vector", "error"]
    assert embedded.schema["vector"] == stage.copy().setDistinct(False).transform(rows).schema["vector"]
    found = embedded.orderBy("id").collect()
    counts = observation.get
    assert (counts["rows"], counts["texts"], counts["nulls"]) == (5, 4, 1)
    vectors = dict(zip(TEXTS, tiny_model.encode("", [text or "" for text in TEXTS]), strict=True))
    assert [row.id for row in found] == list(range(60))
    for row in found:
        assert row.error is None
        if row.text is None:
            assert row.vector is None
        else:
            assert_close(row.vector, vectors[row.text])


def test_instructions_and_columns(rows, stage, tiny_model):
    """Rows are equal if their texts in all columns and their instructions are."""
    rows = rows.where("id < 20").withColumn("instruction", F.when(F.col("id") % 2 == 0, F.lit("I: ")))
    rows = rows.withColumn("a.b", F.lit("a"))
    stage = stage.setInputCols("text", "a.b").setOutputCols("vector", "v.b").setInstructionCol("instruction")
    observation = Observation()
    found = stage.observe(rows, observation).collect()
    assert observation.get["rows"] == 10
    for row in found:
        for text, vector in ((row.text, row.vector), ("a", row["v.b"])):
            if text is not None:
                assert_close(vector, tiny_model.encode(row.instruction or "", [text])[0])


@pytest.mark.one_kind
def test_rows_that_change_between_two_reads(rows, stage):
    texts = rows.select(F.udf(lambda _: str(uuid.uuid4()))("id").alias("text"))
    with pytest.raises(Exception, match="had other texts the second time; write them to a table first"):
        stage.transform(texts).collect()


@pytest.mark.one_kind
def test_what_cannot_be_distinct(spark, rows, stage):
    with pytest.raises(ValueError, match="column 'text' is an array; distinct embeds string columns"):
        stage.transform(rows.select(F.array("text").alias("text")))
    stream = spark.readStream.format("rate").load().select(F.lit("a").alias("text"))
    with pytest.raises(ValueError, match="distinct reads the rows twice, which a stream cannot do"):
        stage.transform(stream)
