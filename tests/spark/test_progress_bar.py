"""The progress of jobs that embed: what it counts on each kind of session, and how it is shown."""

import io
import re
import sys
import time

import pytest
from pyspark.sql import functions as F

from spark_instructor import InstructorEmbeddings, embed_changes, instructor_embed, progress, progress_bar
from spark_instructor.models.shipping import is_connect


@pytest.fixture
def states(monkeypatch):
    """Record the states that are shown, as tuples of done, total and unit."""
    recorded = []

    class Recorder:
        def __init__(self, start):
            self.show = lambda *state: recorded.append(state)

    monkeypatch.setattr(progress_bar, "_LogLines", Recorder)
    monkeypatch.setattr(progress_bar, "_POLL_SECONDS", 0.05)
    return recorded


@pytest.fixture
def stage(tiny):
    return InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector")


def write(rows):
    rows.write.format("noop").mode("overwrite").save()


def test_what_a_session_counts(spark, stage, states):
    if is_connect(spark) and not hasattr(spark, "registerProgressHandler"):
        pytest.skip("Spark Connect reports tasks from version 4.0")
    with progress(40):
        write(stage.transform(spark.range(40, numPartitions=4).selectExpr("concat('text ', id) AS text")))
    if is_connect(spark):
        assert states and all(done <= total == 4 and unit == "tasks" for done, total, unit in states)
    else:
        assert states[-1] == (40, 40, "rows")
        assert [done for done, *_ in states] == sorted(done for done, *_ in states)


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_every_way_to_embed(spark, stage, tiny, states, tmp_path):
    rows = spark.range(40, numPartitions=4).selectExpr("id", "concat('text ', id) AS text")
    write(stage.transform(rows))  # before the block
    with progress():
        upper = F.pandas_udf(lambda texts: texts.str.upper(), "string")
        write(rows.select(instructor_embed(upper("text"), model=str(tiny))))
    assert states[-1] == (40, None, "rows")
    with progress():
        embed_changes(rows.where("id < 10"), str(tmp_path / "target"), "id", stage, parts=3)
        embed_changes(rows, str(tmp_path / "target"), "id", stage)
    assert states[-1] == (40, None, "rows")


@pytest.mark.one_kind
def test_rows_count_before_their_task_ends(spark, stage, states):
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 50)
    try:
        with progress(2000):
            texts = spark.range(2000, numPartitions=1).selectExpr("concat(repeat('text ', 300), id) AS text")
            write(stage.transform(texts))
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert {done for done, *_ in states} - {0, 2000}, states[-1]
    assert states[-1] == (2000, 2000, "rows")


@pytest.mark.one_kind
def test_a_failed_job_raises_its_error(spark, stage, states):
    texts = spark.range(1).selectExpr("CASE WHEN id < 1 THEN raise_error('broken') END AS text")
    with pytest.raises(Exception, match="broken"), progress(1):
        stage.transform(texts.selectExpr("CAST(text AS string) AS text")).collect()


def test_formats():
    assert progress_bar.format_progress(0, 20000, "rows", 3) == "0 of 20,000 rows"
    assert progress_bar.format_progress(5000, 20000, "rows", 20) == "5,000 of 20,000 rows, 250.0 rows/s, 01:00 left"
    assert progress_bar.format_progress(5000, None, "rows", 20) == "5,000 rows, 250.0 rows/s"


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(progress_bar, "_LOG_SECONDS", 0.2)
    with progress_bar._open_display() as show:
        for done in range(50):
            show(done, 100, "rows")
            time.sleep(0.01)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 6
    assert all(re.fullmatch(r"\d+%, \d+ of 100 rows, [\d.]+ rows/s, 00:0\d left", line) for line in lines), lines


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar._open_display() as show:
        show(0, 100, "rows")
        show(50, 100, "rows")
        show(3, 4, "tasks")
        show(7, None, "rows")
    written = sys.stderr.getvalue()
    assert re.search(r" 50% \|█{10} {10}\| 50 of 100 rows, [\d,.]+ rows/s, 00:00 left", written), written
    assert re.search(r" 75% \|.{20}\| 3 of 4 tasks", written) and re.search(r"\r7 rows, [\d,.]+ rows/s", written)
