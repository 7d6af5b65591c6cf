"""A Spark session with Delta, and on Spark 4.0 with Iceberg; `tests/tables` uses it, and the process that it kills."""

import os
from pathlib import Path

import pyspark

ROWS = 80
VERSION = pyspark.__version__[:3]
PACKAGES = {
    "3.5": {"delta": "io.delta:delta-spark_2.12:3.3.3"},
    "4.0": {
        "delta": "io.delta:delta-spark_4.0_2.13:4.4.0",
        "iceberg": "org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.11.0",
    },
}.get(VERSION, {})
_SETTINGS = {
    "delta": {
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": "2",  # 50 by default, for tables of millions of files
    },
    "iceberg": {
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
    },
}
_EXTENSIONS = {
    "delta": "io.delta.sql.DeltaSparkSessionExtension",
    "iceberg": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}


def start_session(warehouse):
    """Start a session with the jars in the subfolders of TABLE_JARS, such as delta-spark4.0, or from Maven."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.showConsoleProgress", "false")
    builder = builder.config("spark.sql.warehouse.dir", f"{warehouse}/delta")
    builder = builder.config("spark.sql.catalog.lake.warehouse", f"{warehouse}/iceberg")
    folder = os.environ.get("TABLE_JARS")
    if folder:
        jars = [jar for name in PACKAGES for jar in Path(folder, f"{name}-spark{VERSION}").glob("*.jar")]
        assert jars, f"TABLE_JARS names {folder}, which has no folders of jars for Spark {VERSION}"
        builder = builder.config("spark.jars", ",".join(map(str, jars)))
    else:
        builder = builder.config("spark.jars.packages", ",".join(PACKAGES.values()))
    builder = builder.config("spark.sql.extensions", ",".join(_EXTENSIONS[name] for name in PACKAGES))
    for name in PACKAGES:
        builder = builder.config(map=_SETTINGS[name])
    return builder.getOrCreate()


def name_table(provider, warehouse, name):
    """Return a name under which sessions of several processes find a table of the warehouse."""
    return f"lake.db.{name}" if provider == "iceberg" else f"delta.`{warehouse}/{name}`"


def make_source(spark):
    """Return the rows that a process embeds until it is killed, and that the test embeds afterwards."""
    return spark.createDataFrame([(i, f"text number {i}") for i in range(ROWS)], "id int, text string")
