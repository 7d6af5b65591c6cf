"""The main job, end to end: embed passages through a Pipeline, write Parquet, answer questions from it.

make demo
make demo ARGS="--model hkunlp/instructor-base"   # a model whose vectors mean something; needs a network once
"""

import argparse
import os
import sys
import time
from pathlib import Path

from pyspark.ml import Pipeline
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_instructor import DocumentAssembler, InstructorEmbeddings

HERE = Path(__file__).parent
DOCUMENT_INSTRUCTION = "Represent the document for retrieval: "
QUESTION_INSTRUCTION = "Represent the question for retrieving supporting documents: "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="instructor_tiny", help="known name, hub id or folder (%(default)s)")
    parser.add_argument("--output", default="output/demo.parquet", help="where the embedded passages go (%(default)s)")
    arguments = parser.parse_args()

    os.environ["PYSPARK_PYTHON"] = sys.executable  # the executors' Python is this one, activated or not
    print("Starting Spark ...", flush=True)
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("spark_instructor demo")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "true")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    embed_passages(spark, arguments.model, arguments.output)
    answer_questions(spark, arguments.model, arguments.output)
    if arguments.model == "instructor_tiny":
        print(
            "\nThese answers are not right, and cannot be: instructor_tiny has random weights, so its vectors mean "
            'nothing. It shows that everything runs.\nFor real answers: make demo ARGS="--model hkunlp/instructor-base"'
        )
    spark.stop()


def embed_passages(spark: SparkSession, model: str, output: str) -> None:
    """Embed the passages as documents and write them with their vectors."""
    passages = spark.read.schema("id string, text string, source string").json(str(HERE / "passages.jsonl"))
    pipeline = Pipeline(
        stages=[
            DocumentAssembler().setInputCol("text").setOutputCol("documents"),
            InstructorEmbeddings.pretrained(model, "en")
            .setInstruction(DOCUMENT_INSTRUCTION)
            .setInputCols(["documents"])
            .setOutputCol("instructor"),
        ]
    )
    print(f"Embedding the passages of {HERE.name}/passages.jsonl with {model} ...", flush=True)
    start = time.perf_counter()
    embedded = pipeline.fit(passages).transform(passages.repartition(8))
    embedded.write.mode("overwrite").parquet(output)
    seconds = time.perf_counter() - start

    metadata = F.col("instructor.metadata")
    row = (
        spark.read.parquet(output)
        .select(
            F.aggregate(metadata, F.lit(0), lambda total, one: total + one["tokens"].cast("int")).alias("tokens"),
            F.exists(metadata, lambda one: F.coalesce(one["truncated"], F.lit("false")) == "true").alias("truncated"),
        )
        .agg(F.count("*").alias("rows"), F.sum("tokens").alias("tokens"), F.count_if("truncated").alias("truncated"))
        .first()
    )
    print(f"Wrote {output}")
    print(f"  rows             {row.rows:>8,}")
    print(f"  tokens           {row.tokens:>8,}")
    print(f"  truncated texts  {row.truncated:>8,}")
    print(f"  seconds          {seconds:>8.1f}   (starting the Python workers included)")
    print(f"  rate             {row.rows / seconds:>8,.0f} texts/s, {row.tokens / seconds:,.0f} tokens/s")


def answer_questions(spark: SparkSession, model: str, output: str) -> None:
    """Embed the questions, as questions, and print the passage nearest to each."""
    questions = spark.read.schema("id string, text string, answer string").json(str(HERE / "questions.jsonl"))
    asked = (
        InstructorEmbeddings.pretrained(model, "en")
        .setInstruction(QUESTION_INSTRUCTION)
        .setInputCols("text")
        .setOutputCol("vector")
        .transform(questions)
    )
    passages = spark.read.parquet(output).select(
        F.col("id").alias("passage"), F.col("text").alias("passage_text"), F.col("instructor")[0].embeddings.alias("v")
    )
    ranked = nearest(asked, passages).orderBy("id", "rank").collect()
    questions_asked = {row.id for row in ranked}
    print("\nNearest passages:")
    for row in ranked:
        if row.rank == 1:
            mark = "right" if row.passage == row.answer else "wrong"
            print(f"\n  {row.text}\n    {row.similarity:.3f} {row.passage} ({mark}): {row.passage_text[:90]}...")
    found = {k: sum(row.passage == row.answer and row.rank <= k for row in ranked) for k in (1, 3)}
    print(
        f"\nThe right passage came first for {found[1]}, and among the first three for {found[3]}, of "
        f"{len(questions_asked)} questions."
    )


def nearest(asked: DataFrame, passages: DataFrame, count: int = 3) -> DataFrame:
    """The passages most similar to each question: unit vectors, so the dot product is the cosine."""
    products = F.zip_with("vector", "v", lambda x, y: (x * y).cast("double"))
    similar = asked.crossJoin(passages).withColumn(
        "similarity", F.aggregate(products, F.lit(0.0), lambda total, one: total + one)
    )
    by_similarity = Window.partitionBy("id").orderBy(F.desc("similarity"))
    return similar.withColumn("rank", F.row_number().over(by_similarity)).where(F.col("rank") <= count)


if __name__ == "__main__":
    main()
