"""How many rows the model embeds for each kind of action, if there are `ROWS` rows in two partitions.

| action | embedded | why |
| --- | --- | --- |
| write | each row once | |
| select of other columns | none | Spark removes a UDF whose result is not needed |
| filter on an input column | each remaining row once | Spark applies the filter before the UDF, wherever it is |
| filter on the output | each row once | a plain projection would be computed twice: for the filter and for the output |
| explode of the output | each row once | as for the filter on the output |
| count | none | as for the select |
| limit | one Arrow batch of each partition that is read | Spark fills a batch before it evaluates any row |
| sort | each row twice | Spark samples the input to find the ranges before it sorts; write or cache the rows first |

A filter on the output does not embed twice, because the stage's plan contains an `explode` of a constant. The
alternatives cost more: a nondeterministic UDF would embed all rows for a filter on an input column, and an `explode`
of the vectors themselves would embed all rows for a count and for a select of other columns.
"""

from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import Observation
from pyspark.sql import functions as F
from pyspark.sql.functions import pandas_udf

from spark_instructor import InstructorEmbeddings, udf
from spark_instructor.stages import embeddings

ROWS = 12


KINDS = ["arrow_udf", "pandas_udf"] if hasattr(F, "arrow_udf") else ["pandas_udf"]


@pytest.fixture(params=KINDS)
def count_embedded(request, monkeypatch, tmp_path):
    """Return a function that runs an action and counts the rows that the stage's UDF gets, in all workers together."""
    if request.param == "pandas_udf":
        monkeypatch.setattr(udf, "_arrow_udf", None)
    log = tmp_path / "rows"
    path, original = str(log), embeddings.create_stage_udf

    def create_counting_udf(job, has_null_texts):
        created = original(job, has_null_texts)
        embed, returns = created.func, created.returnType

        def log_rows(batches):
            for batch in batches:
                with open(path, "a") as file:
                    file.write(f"{len(batch)}\n")
                yield batch

        def count_arrays(structs: Iterator[pa.Array]) -> Iterator[pa.Array]:
            yield from embed(log_rows(structs))

        def count_frames(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            yield from embed(log_rows(frames))

        if request.param == "pandas_udf":
            return pandas_udf(count_frames, returns)
        return F.arrow_udf(count_arrays, returns)

    def count_rows(action):
        log.write_text("")
        action()
        return sum(map(int, log.read_text().split()))

    monkeypatch.setattr(embeddings, "create_stage_udf", create_counting_udf)
    return count_rows


@pytest.fixture
def texts(spark):
    return spark.createDataFrame([(i, f"text {i}") for i in range(ROWS)], "id int, text string").repartition(2, "id")


@pytest.fixture
def stage(tiny):
    return InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols("text").setOutputCol("vector")


def noop(df):
    df.write.format("noop").mode("overwrite").save()


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("action", "rows", "observed"),
    [
        pytest.param(noop, ROWS, ROWS, id="write"),
        pytest.param(lambda df: df.select("id", "text").collect(), 0, ROWS, id="select of other columns"),
        pytest.param(lambda df: noop(df.filter("id < 5")), 5, ROWS, id="filter on an input column"),
        pytest.param(lambda df: noop(df.filter("vector[0] > -2")), ROWS, ROWS, id="filter on the output"),
        pytest.param(lambda df: noop(df.filter("id < 5 and vector[0] > -2")), 5, ROWS, id="filter on both"),
        pytest.param(lambda df: noop(df.select(F.explode("vector"))), ROWS, ROWS, id="explode of the output"),
        pytest.param(lambda df: df.count(), 0, ROWS, id="count"),
        pytest.param(lambda df: noop(df.limit(1)), ROWS, ROWS, id="limit"),
        pytest.param(lambda df: noop(df.orderBy("id")), 2 * ROWS, 2 * ROWS, id="sort"),
    ],
)
def test_embedded_rows(texts, stage, count_embedded, action, rows, observed):
    transformed, with_counts = stage.transform(texts), stage.observe(texts, Observation())
    assert count_embedded(lambda: action(transformed)) == rows
    assert count_embedded(lambda: action(with_counts)) == observed


def test_all_columns_together(spark, tiny, count_embedded):
    """One UDF embeds all input columns, so each row goes to the model once, with all its texts."""
    texts = spark.createDataFrame(
        [(f"title {i}", [f"body {i}"]) for i in range(ROWS)], "title string, body array<string>"
    )
    stage = InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols("title", "body").setOutputCols("t", "b")
    transformed = stage.transform(texts)
    assert count_embedded(lambda: noop(transformed.filter("t[0] > -2 and b[0][0] > -2"))) == ROWS
    assert count_embedded(lambda: noop(transformed.select("b"))) == ROWS
