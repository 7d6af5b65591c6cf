"""Notebooks of one cluster: Python processes that share a SparkContext, as Databricks, Livy and Zeppelin run them.

Usage: notebooks_job.py CHECKPOINT FOLDER. The TMPDIR of the executors and findings.json are in FOLDER. The process that
starts the SparkContext runs two notebooks with the gateway of its JVM: ``notebooks_job.py notebook CHECKPOINT``.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from spark_instructor import InstructorEmbeddings

TEXTS = [f"text number {i}" for i in range(8)]


class Notebook:
    """A process that embeds `TEXTS` each time it is told to, and ends when it is closed."""

    def __init__(self, checkpoint, gateway):
        environment = {
            "PYSPARK_GATEWAY_PORT": str(gateway.gateway_parameters.port),
            "PYSPARK_GATEWAY_SECRET": gateway.gateway_parameters.auth_token,
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, "notebook", checkpoint],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self):
        print("embed", file=self._process.stdin, flush=True)

    def wait(self):
        """Return the vector of each text, or the error."""
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        assert self._process.wait() == 0


def run_cells(checkpoint):
    """Embed `TEXTS` in the SparkContext of the JVM that the environment names, once per line of stdin."""
    gateway = launch_gateway()
    scala_context = gateway.jvm.org.apache.spark.SparkContext.getOrCreate()
    jsc = gateway.jvm.org.apache.spark.api.java.JavaSparkContext(scala_context)
    SparkContext(jsc=jsc, gateway=gateway, conf=SparkConf(_jvm=gateway.jvm, _jconf=jsc.getConf()))
    spark = SparkSession.builder.getOrCreate()
    for _ in sys.stdin:
        print(json.dumps(catch_error(embed, spark, checkpoint)), flush=True)


def embed(spark, checkpoint):
    stage = InstructorEmbeddings.loadSavedModel(checkpoint).setInputCols("text").setOutputCol("vector")
    texts = spark.createDataFrame([(text,) for text in TEXTS], "text string").repartition(2)
    return {row.text: row.vector for row in stage.transform(texts).collect()}


def catch_error(function, *arguments):
    """Return the result or the message of the error; tests check each finding on its own."""
    try:
        return function(*arguments)
    except Exception as error:
        return str(error)


def replace_executor(spark):
    """Kill the executor and wait for the one that Spark starts in its place."""
    context = spark.sparkContext._jsc.sc()
    killed = context.getExecutorIds().mkString()
    context.killAndReplaceExecutor(killed)
    deadline = time.monotonic() + 120
    while context.getExecutorIds().mkString() in ("", killed):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def main(checkpoint, folder):
    cache = folder / "tmp"
    cache.mkdir()
    builder = (
        SparkSession.builder.master("local-cluster[1,1,1024]")
        .config("spark.executorEnv.TMPDIR", str(cache))
        .config("spark.task.maxFailures", "1")
    )
    spark = builder.getOrCreate()
    first, second = (Notebook(checkpoint, spark.sparkContext._gateway) for _ in range(2))
    findings = {}
    for notebook in (first, second):
        notebook.start()
    findings["first"], findings["second"] = first.wait(), second.wait()

    second.start()
    first.close()
    findings["while the first ends"] = second.wait()

    replace_executor(spark)
    shutil.rmtree(cache)  # as if the executor had started on another host
    cache.mkdir()
    findings["unrelated"] = catch_error(spark.range(10).repartition(2).count)
    second.start()
    findings["after replacement"] = second.wait()
    second.close()

    spark.stop()
    spark = builder.getOrCreate()
    findings["restarted"] = catch_error(embed, spark, checkpoint)
    spark.stop()
    (folder / "findings.json").write_text(json.dumps(findings))


if __name__ == "__main__":
    if sys.argv[1] == "notebook":
        run_cells(sys.argv[2])
    else:
        main(sys.argv[1], Path(sys.argv[2]))
