"""InstructorEmbeddings.estimate counts the rows, and extrapolates from a sample."""

import pytest

from spark_instructor import InstructorEmbeddings
from spark_instructor.encoder import InstructorModel

LONG = "many words " * 400
TEXTS = ["one text", "one text", LONG, None]


@pytest.fixture(scope="module")
def stage(tiny):
    return InstructorEmbeddings(model=str(tiny), instruction="Count: ", inputCols="text", outputCol="vector")


@pytest.fixture(scope="module")
def texts(spark):
    return spark.createDataFrame([(text,) for text in TEXTS], "text string").repartition(2)


def test_all_rows(stage, texts, tiny):
    estimate = stage.estimate(texts)
    read = InstructorModel.from_pretrained(tiny).encode_counted("Count: ", TEXTS[:3]).tokens.sum()
    assert (estimate.rows, estimate.texts, estimate.tokens) == (4, 3, read)
    assert (estimate.truncated, estimate.repeated) == pytest.approx((1 / 3, 1 / 3))
    assert estimate.vector_bytes == 3 * 64 * 4
    assert 0 < estimate.hours(cores=2) == estimate.core_hours / 2
    assert estimate.unknown == 0
    assert "truncated            33.3%" in str(estimate)


def test_unknown_tokens(stage, spark):
    estimate = stage.estimate(spark.createDataFrame([("你好",), ("an ordinary text",)], "text string"))
    assert estimate.unknown == pytest.approx(1 / estimate.tokens)


def test_a_sample(stage, spark, tiny):
    rows = spark.range(10_000).selectExpr("concat('text ', id % 10) AS text")
    estimate = stage.copy().setDistinct(True).estimate(rows, sample_rows=200)
    assert estimate.rows == estimate.texts == 10_000
    assert 0.9 < estimate.repeated < 0.99  # 10 distinct texts in a sample of about 200
    read = InstructorModel.from_pretrained(tiny).encode_counted("Count: ", [f"text {i}" for i in range(10)]).tokens
    assert estimate.tokens == pytest.approx(1_000 * read.sum(), rel=0.1)


@pytest.mark.one_kind
def test_errors(stage, texts):
    with pytest.raises(ValueError, match="rows is -5, expected at least 0"):
        stage.estimate(texts, rows=-5)
    with pytest.raises(ValueError, match="the sample has no rows: the DataFrame has far fewer than rows=1000000000"):
        stage.estimate(texts, rows=10**9)
    with pytest.raises(ValueError, match="sample_rows is 9, expected at least 100"):
        stage.estimate(texts, sample_rows=9)
    with pytest.raises(ValueError, match="the DataFrame has no rows"):
        stage.estimate(texts.where("false"))
    with pytest.raises(ValueError, match="the DataFrame has no rows"):
        stage.estimate(texts, rows=0)
    with pytest.raises(ValueError, match="the sample of about 1000 rows has no text: pass a larger sample_rows"):
        stage.estimate(texts.where("text IS NULL"))
