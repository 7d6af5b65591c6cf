"""A job whose driver and executors share nothing but Spark; test_shipping.py runs it and reads its findings.

Usage: shipping_job.py KIND CHECKPOINT FOLDER, with KIND classic or connect, in an environment whose HOME and
HF_HOME are the driver's alone. FOLDER is the executors' HOME and, in it, TMPDIR; findings.json is left there.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_instructor import InstructorEmbeddings

TEXTS = [f"text number {i}" for i in range(16)]


def loaded_models(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """What this Python worker has loaded, and for which executor it works."""
    from pyspark import SparkFiles

    from spark_instructor import worker

    for _ in frames:
        time.sleep(0.5)  # so that no executor takes all partitions
        folders = [model.folder for model, _ in worker._models]
        yield pd.DataFrame({"executor": os.path.realpath(SparkFiles.getRootDirectory()), "folder": folders})


def main(kind, checkpoint, folder):
    (folder / "tmp").mkdir(parents=True)
    builder = SparkSession.builder
    cluster = "local-cluster[2,1,1024]"
    builder = builder.remote(cluster) if kind == "connect" else builder.master(cluster)
    spark = (
        builder.config("spark.executorEnv.HOME", str(folder))
        .config("spark.executorEnv.HF_HOME", str(folder / "hf"))
        .config("spark.executorEnv.TMPDIR", str(folder / "tmp"))
        .config("spark.task.maxFailures", "1")
        .config("spark.scheduler.minRegisteredResourcesRatio", "1.0")
        .config("spark.scheduler.maxRegisteredResourcesWaitingTime", "60s")
        .getOrCreate()
    )
    texts = spark.createDataFrame([(text,) for text in TEXTS], "text string").repartition(4)
    saved = folder / "saved"
    InstructorEmbeddings.loadSavedModel(str(checkpoint)).setInputCols("text").setOutputCol("vector").save(str(saved))
    stage = InstructorEmbeddings.load(str(saved))
    shipped = stage.transform(texts)
    shared = stage.copy().setSharedFolder(str(folder / "shared")).transform(texts)

    # Between transform and the first action all goes that the driver had; the executors have what was sent.
    for gone in (checkpoint, saved, Path(os.environ["HF_HOME"])):
        shutil.rmtree(gone)
    findings = {"shipped": vectors(shipped), "shared": vectors(shared)}
    models = shipped.select("text").mapInPandas(loaded_models, "executor string, folder string")
    findings["models"] = [list(row) for row in models.distinct().collect()]

    shutil.rmtree(folder / "shared")
    try:
        shared.select(F.size("vector")).collect()
    except Exception as error:  # of another class on each kind of session; what it says is what counts
        findings["error"] = str(error)
    (folder / "findings.json").write_text(json.dumps(findings))
    spark.stop()


def vectors(embedded):
    return {row.text: row.vector for row in embedded.collect()}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
