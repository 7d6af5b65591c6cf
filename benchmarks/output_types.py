"""Measure what each output type of vectors costs in disk space, and what it loses in a search.

python benchmarks/output_types.py                        # the packaged passages
python benchmarks/output_types.py DATA                   # also two larger sets of the folder DATA; see README.md

The texts are embedded once, and `convert_vectors` gives each type. recall@10 is the share of the ten texts nearest to a
query in float32 that are also among the ten nearest in the other type, on average. The queries stay float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
from common import say
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_instructor import InstructorEmbeddings, convert_vectors, nearest
from spark_instructor.vectors import OUTPUT_TYPES

EXAMPLES = Path(__file__).parents[1] / "examples"
BITS = {"float": 32, "vector": 64, "half": 16, "int8": 8, "binary": 1}
K = 10
QUERIES = 300
TEXTS = 5000


class TextSet(NamedTuple):
    """Texts to search in, and texts to search with."""

    name: str
    texts: list[str]
    instruction: str
    queries: list[str]
    query_instruction: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with the larger sets")
    parser.add_argument("--model", default="instructor_tiny", help="known name, hub id or folder (%(default)s)")
    parser.add_argument("--master", default="local[*]", help="of the Spark session (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    arguments.machine = common.machine()

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = common.session(arguments.master, {"spark.sql.shuffle.partitions": "2"})
    rows = []
    for texts in read_sets(arguments.data):
        say(f"{texts.name}: {len(texts.texts):,} texts, {len(texts.queries):,} queries")
        with tempfile.TemporaryDirectory() as folder:
            rows += measure_types(spark, arguments.model, texts, Path(folder))
    spark.stop()
    common.table(
        f"Output types of {arguments.model}",
        ["type", "texts", "number", "bytes per vector", "bytes in Parquet", "recall@10"],
        [
            (
                row["type"],
                row["texts"],
                f"{row['number']:,}",
                row["bytes"],
                f"{row['parquet_bytes']:.0f}",
                f"{row['recall']:.1%}",
            )
            for row in rows
        ],
    )
    common.write_json(arguments, {"model": arguments.model, "figures": rows})


def read_sets(data: Path | None) -> list[TextSet]:
    """Return the packaged passages with their questions and, from a folder, news and titles of questions."""
    passages, questions = (
        [row["text"] for row in common.read_jsonl(EXAMPLES / f"{name}.jsonl")] for name in ("passages", "questions")
    )
    document, question = "Represent the document for retrieval: ", "Represent the question for retrieving documents: "
    sets = [TextSet("packaged passages", passages, document, questions, question)]
    if data is not None:
        for name, file, instruction in (
            ("AG News", "clu.agnews_test.jsonl.gz", "Represent the news article for retrieval: "),
            ("Stack Overflow titles", "clu.stackoverflow.jsonl.gz", "Represent the question for retrieval: "),
        ):
            texts = list(dict.fromkeys(row["text"] for row in common.read_jsonl(data / file)))
            sets.append(TextSet(name, texts[QUERIES : QUERIES + TEXTS], instruction, texts[:QUERIES], instruction))
    return sets


def measure_types(spark: SparkSession, model: str, texts: TextSet, folder: Path) -> list[dict[str, Any]]:
    """Return one row per output type: the size of its vectors, and the recall of a search among them."""
    embedded = embed(spark, model, texts.texts, texts.instruction, folder / "texts")
    asked = embed(spark, model, texts.queries, texts.query_instruction, folder / "queries")
    asked = asked.withColumnRenamed("row", "query")
    dimension = embedded.schema["vector"].metadata["dimension"]
    rows, exact = [], None
    for output_type in OUTPUT_TYPES:
        stored = folder / output_type
        convert_vectors(embedded, output_type).write.parquet(str(stored))
        found = find_rows(nearest(asked, spark.read.parquet(str(stored)), K))
        exact = found if exact is None else exact
        size = sum(file.stat().st_size for file in stored.glob("*.parquet"))
        recall = np.mean([len(found[query] & rows_) / len(rows_) for query, rows_ in exact.items()])
        rows.append(
            {
                "type": output_type,
                "texts": texts.name,
                "number": len(texts.texts),
                "bytes": dimension * BITS[output_type] // 8,
                "parquet_bytes": size / len(texts.texts),
                "recall": float(recall),
            }
        )
    return rows


def embed(spark: SparkSession, model: str, texts: list[str], instruction: str, folder: Path) -> DataFrame:
    """Embed texts into a Parquet folder, and read the numbers of the rows and the vectors."""
    stage = InstructorEmbeddings(model=model, inputCols="text", outputCol="vector", instruction=instruction)
    rows = spark.createDataFrame(list(enumerate(texts)), "row int, text string").repartition(4)
    stage.transform(rows).drop("text").write.parquet(str(folder))
    return spark.read.parquet(str(folder))


def find_rows(hits: DataFrame) -> dict[int, set[int]]:
    """Return the rows that were found for each query."""
    found = hits.groupBy("query").agg(F.collect_set("row").alias("rows")).collect()
    return {row["query"]: set(row["rows"]) for row in found}


if __name__ == "__main__":
    main()
