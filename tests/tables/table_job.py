"""A process for test_tables.py that calls embed_table and kills itself and its JVM in the middle of it.

Usage: table_job.py CHECKPOINT PROVIDER WAREHOUSE MOMENT

MOMENT says when: "embedding", after the first of several commits of vectors, while the next job runs; "merging", while
the MERGE runs; "merged", after it.
"""

import os
import signal
import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from table_session import ROWS, make_source, name_table, start_session

from spark_instructor import InstructorEmbeddings, embed_table, tables

PARTS = 4


def kill(spark):
    os.kill(spark.sparkContext._gateway.proc.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(moment, spark):
    """Replace the functions of embed_table with ones that start the kill."""
    merge, count_tasks = tables._merge, tables.count_tasks
    jobs = []

    def kill_soon(seconds):
        threading.Timer(seconds, kill, [spark]).start()

    def count_and_kill(rows):
        jobs.append(rows)
        if moment == "embedding" and len(jobs) == 2:
            kill_soon(0.3)
        return count_tasks(rows)

    def merge_and_kill(*arguments):
        if moment == "merging":
            kill_soon(0.3)
        merge(*arguments)
        kill(spark)

    tables.count_tasks, tables._merge = count_and_kill, merge_and_kill
    tables._ROWS_PER_PART = ROWS // PARTS


def main(checkpoint, provider, warehouse, moment):
    spark = start_session(warehouse)
    stage = InstructorEmbeddings(model=checkpoint, inputCols="text", outputCol="vector")
    kill_at(moment, spark)
    embed_table(make_source(spark), name_table(provider, warehouse, "killed"), "id", stage, provider=provider)


if __name__ == "__main__":
    main(*sys.argv[1:])
