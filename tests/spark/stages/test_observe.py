"""InstructorEmbeddings.observe counts rows, texts and tokens, and returns the same rows as transform."""

import pytest
from pyspark.sql import Observation
from pyspark.sql import functions as F

from spark_instructor import DocumentAssembler, InstructorEmbeddings
from spark_instructor.encoder import InstructorModel

LONG = "many words " * 400
ROWS = [
    (0, "one text", ["a", None, "a"]),
    (1, None, None),
    (2, "one text", []),
    (3, LONG, [LONG, "b"]),
    (4, "", ["a", "b"]),
]


@pytest.fixture(scope="module")
def stage(tiny):
    return InstructorEmbeddings.loadSavedModel(str(tiny)).setInstruction("Count: ")


@pytest.fixture(scope="module")
def tokens(tiny):
    model = InstructorModel.from_pretrained(tiny)
    return lambda *texts: int(model.encode_counted("Count: ", texts).tokens.sum())


@pytest.fixture(scope="module")
def rows(spark):
    return spark.createDataFrame(ROWS, "id int, text string, texts array<string>").coalesce(1)


def observe(stage, df):
    observation = Observation()
    embedded = stage.observe(df, observation)
    embedded.write.format("noop").mode("overwrite").save()
    metrics = observation.get
    assert 0 < metrics.pop("seconds") < 600
    return metrics


def test_strings(stage, rows, tokens):
    metrics = observe(stage.copy().setInputCols("text").setOutputCol("v"), rows)
    counts = {"rows": 5, "nulls": 1, "texts": 4, "tokens": tokens("one text", "one text", LONG, "")}
    assert metrics == {**counts, "truncated": 1, "unknown": 0, "distinct": 3}


@pytest.mark.one_kind
def test_several_columns(stage, rows, tokens):
    metrics = observe(stage.copy().setInputCols("text", "texts").setOutputCols("v", "vs"), rows)
    read = tokens("one text", "one text", LONG, "", "a", "a", LONG, "b", "a", "b")
    assert metrics == {"rows": 5, "nulls": 3, "texts": 10, "tokens": read, "truncated": 2, "unknown": 0, "distinct": 5}


@pytest.mark.one_kind
def test_annotations(stage, rows, tokens):
    documents = DocumentAssembler(inputCol="text", outputCol="documents").transform(rows)
    metrics = observe(stage.copy().setInputCols("documents").setOutputCol("v"), documents)
    counts = {"rows": 5, "nulls": 0, "texts": 3, "tokens": tokens("one text", "one text", LONG)}
    assert metrics == {**counts, "truncated": 1, "unknown": 0, "distinct": 2}


def test_unknown_tokens(spark, stage):
    """A run of characters outside of the vocabulary is one token, whatever it says."""
    texts = [("你好",), ("你好 world 世界",), ("an ordinary text",), ("你好",), (None,)]
    df = spark.createDataFrame(texts, "text string").coalesce(1)
    metrics = observe(stage.copy().setInputCols("text").setOutputCol("v"), df)
    assert (metrics["unknown"], metrics["texts"], metrics["distinct"]) == (4, 4, 3)


def test_partitions_add_up(stage, rows):
    metrics = observe(stage.copy().setInputCols("text").setOutputCol("v"), rows.repartition(3))
    assert (metrics["rows"], metrics["nulls"], metrics["texts"], metrics["truncated"]) == (5, 1, 4, 1)


def test_no_rows(stage, rows):
    observation = Observation()
    stage.copy().setInputCols("text").setOutputCol("v").observe(rows.where("false"), observation).collect()
    assert set(observation.get.values()) == {0}


def test_rows_are_those_of_transform(stage, rows):
    stage = stage.copy().setInputCols("text").setOutputCol("v")
    with_counts = stage.observe(rows, Observation())
    assert with_counts.schema == stage.transform(rows).schema
    assert with_counts.orderBy("id").collect() == stage.transform(rows).orderBy("id").collect()


def test_a_filter_behind_embeds_every_row(stage, rows):
    observation = Observation()
    stage.copy().setInputCols("text").setOutputCol("v").observe(rows, observation).where(F.col("id") == 0).collect()
    assert observation.get["rows"] == 5
