"""How many rows the model embeds for what an action asks, of `ROWS` in two partitions.

| action | embedded | why |
| --- | --- | --- |
| write | each row once | |
| select of other columns | none | Spark prunes a UDF that nothing needs |
| filter on an input column | what is left | pushed below the UDF even where it stands after the stage |
| filter on the output | each row once | a plain projection would be computed for the filter and for the output: twice |
| explode of the output | each row once | the same |
| count | none | as the select |
| limit | what one Arrow batch of the partitions read holds | Spark fills a batch before it looks at its rows |
| sort | each row twice | Spark samples its input for the ranges before it sorts; write or cache first |

That a filter on the output does not embed twice is the work of the constant `explode` in the stage's plan; the
other ways there are each have a price. A nondeterministic UDF would embed everything for a filter on an input
column; exploding the vectors themselves, everything for a count and a select of other columns.
"""

from collections.abc import Iterator

import pandas as pd
import pytest
from pyspark.sql import Observation
from pyspark.sql import functions as F
from pyspark.sql.functions import pandas_udf

from spark_instructor import InstructorEmbeddings
from spark_instructor.stages import embeddings

ROWS = 12


@pytest.fixture
def embedded(monkeypatch, tmp_path):
    """Runs an action and gives the number of rows that the stage's UDF was handed, in all workers together."""
    log = tmp_path / "rows"
    path, original = str(log), embeddings.create_stage_udf

    def create_counting_udf(job, has_null_texts):
        udf = original(job, has_null_texts)
        embed, returns = udf.func, udf.returnType

        def count(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            def counted():
                for frame in frames:
                    with open(path, "a") as file:
                        file.write(f"{len(frame)}\n")
                    yield frame

            yield from embed(counted())

        return pandas_udf(count, returns)

    def rows_of(action):
        log.write_text("")
        action()
        return sum(map(int, log.read_text().split()))

    monkeypatch.setattr(embeddings, "create_stage_udf", create_counting_udf)
    return rows_of


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
def test_embedded_rows(texts, stage, embedded, action, rows, observed):
    transformed, with_counts = stage.transform(texts), stage.observe(texts, Observation())
    assert embedded(lambda: action(transformed)) == rows
    assert embedded(lambda: action(with_counts)) == observed


def test_all_columns_together(spark, tiny, embedded):
    """Several columns are one UDF: a row goes to the model once, with all its texts."""
    texts = spark.createDataFrame(
        [(f"title {i}", [f"body {i}"]) for i in range(ROWS)], "title string, body array<string>"
    )
    stage = InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols("title", "body").setOutputCols("t", "b")
    both = stage.transform(texts)
    assert embedded(lambda: noop(both.filter("t[0] > -2 and b[0][0] > -2"))) == ROWS
    assert embedded(lambda: noop(both.select("b"))) == ROWS
