"""Jobs for test_daemon.py, in one session whose Python workers come from spark_instructor's daemon.

Usage: daemon_job.py MASTER MODEL OTHER_MODEL OUTPUT [SETTING=VALUE ...]

Runs other UDFs, and embeds a few texts with two models; writes to OUTPUT what they returned, as JSON.
"""

import json
import sys
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.functions import pandas_udf, udf
from pyspark.sql.types import StringType

from spark_instructor import InstructorEmbeddings

TEXTS = ["a text", "another text", None]


@pandas_udf(StringType())
def describe_worker(numbers: pd.Series) -> pd.Series:
    """Return, in JSON, which models a worker has loaded before it was asked to, and whether CUDA is in use."""
    import torch

    from spark_instructor import worker

    content = {
        "models": [key.folder for key, _ in worker._models],
        "cuda": torch.cuda.is_initialized(),
    }
    return pd.Series([json.dumps(content)] * len(numbers))


def embed(spark, model):
    rows = spark.createDataFrame([(i, text) for i, text in enumerate(TEXTS)], "id int, text string").repartition(2)
    stage = InstructorEmbeddings(model=model, inputCols="text", outputCol="vector")
    return [row.vector for row in sorted(stage.transform(rows).collect())]


def main(master, model, other_model, output, *settings):
    builder = SparkSession.builder.master(master).config("spark.python.daemon.module", "spark_instructor.daemon")
    spark = builder.config(map=dict(setting.split("=", 1) for setting in settings)).getOrCreate()
    numbers = spark.range(4, numPartitions=2)
    results = {
        "workers": [json.loads(row[0]) for row in numbers.select(describe_worker("id")).collect()],
        "udf": [row[0] for row in numbers.select(udf(lambda number: number + 1, "long")(F.col("id"))).collect()],
        "vectors": embed(spark, model),
        "other_vectors": embed(spark, other_model),
    }
    if master.startswith("local["):
        results["rdd"] = spark.sparkContext.parallelize(range(4), 2).map(lambda number: number * 2).collect()
    Path(output).write_text(json.dumps(results))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
