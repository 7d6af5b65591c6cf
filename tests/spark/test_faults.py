"""Faults in real processes: a job either succeeds or fails with a clear error, and loses or duplicates no row."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow.dataset as ds
import pyspark
import pytest
from checkpoints import copy_tiny
from processes import changed_environment
from vectors import TOLERANCE, assert_embedded

from spark_instructor import InstructorEmbeddings
from spark_instructor.daemon import PRELOAD
from spark_instructor.encoder import prepare_model
from spark_instructor.models.prepared import WEIGHTS

pytestmark = pytest.mark.one_kind  # most tests start their own sessions

JOB = Path(__file__).parent / "fault_job.py"
# Spark's message depends on whether the worker still had input to read.
WORKER_IS_GONE = re.compile("Python worker exited unexpectedly|EOFException|Connection reset")
ROWS = 400
WORDS = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "on", "by", "an"]


@pytest.fixture(scope="module")
def texts():
    """Return texts by id; they are long, so that a batch takes a while, and every tenth is null."""
    random = np.random.default_rng(0)
    return {i: None if i % 10 == 0 else " ".join(random.choice(WORDS, 600)) for i in range(ROWS)}


@pytest.fixture
def folder(tmp_path, texts):
    (tmp_path / "texts").mkdir()
    rows = [json.dumps({"id": i, "text": text}) for i, text in texts.items()]
    for number in range(8):
        (tmp_path / "texts" / f"{number}.json").write_text("\n".join(rows[number::8]))
    return tmp_path


def assert_whole(folder, texts, model):
    """Assert that the output contains every row once, with its own vector."""
    rows = ds.dataset(folder / "embedded", partitioning="hive").to_table().sort_by("id").to_pylist()
    assert [(row["id"], row["text"]) for row in rows] == list(texts.items())
    assert_embedded(model, "", texts.values(), [row["vector"] for row in rows])


@contextmanager
def start_job(kind, master, checkpoint, folder, **environment):
    """Run the job in a separate process, and kill it with all its child processes when the block ends."""
    environment = changed_environment(
        SPARK_WORKER_DIR=folder / "work", SPARK_LOCAL_DIRS=folder / "local", **environment
    )
    with (folder / "job.log").open("ab") as log:
        command = [sys.executable, JOB, kind, master, checkpoint, folder]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    job = psutil.Process(process.pid)
    try:
        yield job
    finally:
        kill_all(job)
        process.wait()


def kill_all(job):
    """Kill a process and all its descendants at once, as if their machine went down."""
    processes = [*job.children(recursive=True), job] if job.is_running() else []
    for process in processes:
        kill(process)
    psutil.wait_procs(processes, timeout=30)


def kill(process):
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def wait_for(find, job, folder, seconds=240):
    """Call `find` until it returns something true, and return that; fail if the job ends first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = find()
        if result:
            return result
        assert job.is_running() and job.status() != psutil.STATUS_ZOMBIE, log_of(folder)
        time.sleep(0.02)
    raise AssertionError(f"not found in {seconds} s:\n{log_of(folder)}")


def log_of(folder):
    return (folder / "job.log").read_text(errors="replace")


def embedding_workers(job):
    """Return the job's Python workers that have mapped the model and computed, so they are embedding a batch.

    A worker maps a preloaded model from its start, when it has not computed yet.
    """

    def embeds(process):
        try:
            if "python" not in process.name() or "python" not in process.parent().name():  # the driver, or a daemon
                return False
            return process.cpu_times().user > 0.5 and WEIGHTS in Path(f"/proc/{process.pid}/maps").read_text()
        except (OSError, psutil.Error):  # the process has ended
            return False

    return [child for child in job.children(recursive=True) if embeds(child)]


@pytest.mark.exhaustive
def test_a_python_worker_is_killed(folder, tiny, texts, tiny_model):
    """Spark runs the worker's task again."""
    with start_job("write", "local[2,4]", tiny, folder) as job:
        kill(wait_for(lambda: embedding_workers(job), job, folder)[0])
        job.wait(timeout=240)
    assert "done" in log_of(folder), log_of(folder)
    assert WORKER_IS_GONE.search(log_of(folder))
    assert_whole(folder, texts, tiny_model)


@pytest.mark.exhaustive
def test_a_python_worker_is_killed_where_no_task_may_fail(folder, tiny):
    """If no task may be retried, the job fails, and its output is not marked as complete."""
    with start_job("write", "local[2,1]", tiny, folder) as job:
        kill(wait_for(lambda: embedding_workers(job), job, folder)[0])
        job.wait(timeout=240)
    assert "done" not in log_of(folder)
    assert WORKER_IS_GONE.search(log_of(folder)), log_of(folder)
    assert not (folder / "embedded" / "_SUCCESS").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("victim", ["worker", "daemon"])
def test_a_process_is_killed_with_a_preloaded_model(folder, tiny, texts, tiny_model, victim):
    """Spark starts the daemon again if it is gone, and runs the tasks of a killed worker again."""
    preload = {"DAEMON": "spark_instructor.daemon", PRELOAD: prepare_model(tiny).path}
    with start_job("write", "local[2,4]", tiny, folder, **preload) as job:
        worker = wait_for(lambda: embedding_workers(job), job, folder)[0]
        daemon = worker.parent()
        assert "spark_instructor.daemon" in daemon.cmdline()
        for process in {"worker": [worker], "daemon": [daemon, worker]}[victim]:
            kill(process)
        job.wait(timeout=240)
    assert "done" in log_of(folder), log_of(folder)
    assert WORKER_IS_GONE.search(log_of(folder))
    assert_whole(folder, texts, tiny_model)


@pytest.mark.exhaustive
def test_an_executor_is_killed(folder, tiny, texts, tiny_model):
    with start_job("write", "local-cluster[2,1,1024]", tiny, folder) as job:
        worker = wait_for(lambda: embedding_workers(job), job, folder)[0]
        executor = next(parent for parent in worker.parents() if "java" in parent.name())
        assert "CoarseGrainedExecutorBackend" in " ".join(executor.cmdline())
        kill_all(executor)
        job.wait(timeout=240)
    assert "done" in log_of(folder), log_of(folder)
    assert_whole(folder, texts, tiny_model)


@pytest.mark.exhaustive
def test_a_stream_is_killed_and_started_again(folder, tiny, texts, tiny_model):
    """The output contains every row once, even though the killed run had already written some rows."""
    with start_job("stream", "local[2]", tiny, folder) as job:
        wait_for(lambda: len([*folder.glob("checkpoint/commits/[0-9]*")]) >= 2, job, folder)
        wait_for(lambda: embedding_workers(job), job, folder)
        kill_all(job)
    assert "done" not in log_of(folder)
    with start_job("stream", "local[2]", tiny, folder) as job:
        job.wait(timeout=240)
    assert "done" in log_of(folder), log_of(folder)
    of_sink = [json.loads(line)["path"] for line in sink_log(folder)]
    (folder / "whole").mkdir()
    for path in of_sink:
        source = Path(path.removeprefix("file:"))
        os.link(source, folder / "whole" / source.name)
    (folder / "embedded").rename(folder / "as the sink left it")
    (folder / "whole").rename(folder / "embedded")
    assert_whole(folder, texts, tiny_model)


def sink_log(folder):
    """Read the file sink's log of committed files; Spark reads only these files from the folder."""
    logs = sorted((folder / "embedded" / "_spark_metadata").glob("[0-9]*"), key=lambda path: int(path.name))
    return [line for path in logs for line in path.read_text().splitlines()[1:]]


@pytest.mark.exhaustive
def test_an_update_is_killed_and_started_again(folder, tiny, texts, tiny_model):
    """The second run embeds only the rows that the first run did not finish."""
    with start_job("update", "local[2]", tiny, folder) as job:
        wait_for(lambda: len([*folder.glob("embedded/part=*/*.parquet")]) >= 2, job, folder)
        kill_all(job)
    assert "done" not in log_of(folder)
    with start_job("update", "local[2]", tiny, folder) as job:
        job.wait(timeout=240)
    changes = json.loads((folder / "changes.json").read_text())
    assert changes["unchanged"] > 0 and changes["new"] > 0
    assert changes == {"new": ROWS - changes["unchanged"], "changed": 0, "unchanged": changes["unchanged"], "absent": 0}
    assert_whole(folder, texts, tiny_model)


@pytest.mark.exhaustive
def test_a_driver_is_killed_while_it_saves(spark, folder, tiny, tmp_path):
    """Loading the partial save reports that it is incomplete, and a new save can overwrite it."""
    with start_job("save", "local[1]", tiny, folder) as job:
        wait_for((folder / "saved" / "metadata" / "_SUCCESS").exists, job, folder)
        kill_all(job)
    path = str(folder / "saved")
    with pytest.raises(ValueError, match=f"{path} is incomplete.*Save it again"):
        InstructorEmbeddings.load(path)
    stage = InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector")
    stage.write().overwrite().save(path)
    assert InstructorEmbeddings.load(path).getDimension() == 64


@pytest.fixture
def busy_for_seconds(spark, tiny, texts):
    """Embed all texts in one batch of one task, while Spark considers a worker idle if it is silent for a second."""
    one_partition = spark.createDataFrame(list(texts.items()), "id int, text string").coalesce(1)
    stage = InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector", batchSize=1)
    spark.conf.set("spark.sql.execution.pyspark.udf.idleTimeoutSeconds", "1")
    yield stage.transform(one_partition)
    spark.conf.unset("spark.sql.execution.pyspark.udf.idleTimeoutSeconds")


@pytest.mark.exhaustive
def test_a_worker_is_busy_for_longer_than_it_may_idle(busy_for_seconds, texts, tiny_model):
    rows = sorted(busy_for_seconds.collect())
    assert_embedded(tiny_model, "", texts.values(), [row.vector for row in rows])


@pytest.mark.exhaustive
@pytest.mark.skipif(pyspark.__version__ < "4.1", reason="Spark before 4.1 does not kill idle workers")
def test_a_busy_worker_is_killed_as_idle(spark, busy_for_seconds):
    spark.conf.set("spark.sql.execution.pyspark.udf.killOnIdleTimeout", "true")
    try:
        with pytest.raises(Exception, match=f"terminated due to idle timeout|{WORKER_IS_GONE.pattern}"):
            busy_for_seconds.collect()
    finally:
        spark.conf.unset("spark.sql.execution.pyspark.udf.killOnIdleTimeout")


@pytest.mark.soak
def test_a_worker_that_idled_too_long(spark, tiny, texts, tiny_model):
    """Spark stops a Python worker that has had no task for a minute; the next worker loads the model again."""
    frame = spark.createDataFrame(list(texts.items())[:20], "id int, text string").coalesce(1)
    embedded = InstructorEmbeddings(model=str(tiny), inputCols="text", outputCol="vector").transform(frame)
    pids_of_jobs = []
    for seconds in (0, 75):
        time.sleep(seconds)
        rows = sorted(embedded.collect())
        assert_embedded(tiny_model, "", [row.text for row in rows], [row.vector for row in rows])
        pids_of_jobs.append({worker.pid for worker in embedding_workers(psutil.Process())})
    assert len(pids_of_jobs[0]) == 1 and not pids_of_jobs[0] & pids_of_jobs[1]


@pytest.mark.parametrize("damage", ["altered", "cut short", "gone"])
def test_a_prepared_folder_is_damaged_between_jobs(spark, tmp_path, damage):
    """No job runs with a damaged folder; jobs run again once it is repaired. test_host_cache.py tests host copies."""
    folder = copy_tiny(tmp_path / "model")
    stage = InstructorEmbeddings(model=str(folder), inputCols="text", outputCol="vector")
    # Use only one task: if a job fails, Spark 3.5 may give the closed worker of a killed task to the next job.
    embedded = stage.transform(spark.createDataFrame([("a text",)], "text string").coalesce(1))
    before = embedded.collect()[0].vector
    weights = stage.prepare_model().path / WEIGHTS
    content = weights.read_bytes()
    new_content = {"altered": content[:-1] + bytes([content[-1] ^ 1]), "cut short": content[:-9], "gone": None}[damage]
    if new_content is None:
        weights.unlink()
    else:
        weights.write_bytes(new_content)
    says = {"altered": "was changed after it was prepared", "cut short": "bytes, expected", "gone": "lacks"}[damage]
    with pytest.raises(Exception, match=says):
        embedded.collect()
    weights.write_bytes(content)
    np.testing.assert_allclose(embedded.collect()[0].vector, before, atol=TOLERANCE)
