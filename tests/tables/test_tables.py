"""embed_table with real Delta and Iceberg tables: what it embeds, what the table then holds, and what a kill leaves."""

import json
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from processes import changed_environment
from pyspark.sql import functions as F
from table_session import PACKAGES, ROWS, make_source, name_table
from vectors import assert_embedded

from spark_instructor import Changes, InstructorEmbeddings, cli, embed_table, tables
from spark_instructor.fingerprints import FINGERPRINT
from spark_instructor.progress_bar import _RowCounter
from spark_instructor.provenance import PROVENANCE

INSTRUCTION = "Represent: "
JOB = Path(__file__).parent / "table_job.py"
NUMBERS = count()


@pytest.fixture(params=PACKAGES)
def provider(request):
    return request.param


@pytest.fixture
def table(spark, provider):
    """Return the name of a new table in the catalog that a user would have."""
    name = f"{'lake.db' if provider == 'iceberg' else 'spark_catalog.default'}.vectors_{next(NUMBERS)}"
    spark.sql("CREATE NAMESPACE IF NOT EXISTS " + name.rpartition(".")[0])
    return name


@pytest.fixture
def stage(tiny):
    return InstructorEmbeddings(model=str(tiny), instruction=INSTRUCTION, inputCols="text", outputCol="vector")


@pytest.fixture
def update(spark, stage, table, provider):
    """Return a function that embeds texts by id into the table."""

    def run(texts, changed_stage=stage, **arguments):
        source = spark.createDataFrame(list(texts.items()), "id int, text string")
        return embed_table(source, table, "id", changed_stage, provider=provider, **arguments)

    return run


def assert_table(spark, table, model, texts, instruction=INSTRUCTION):
    """Assert that the table contains every row once, with its own vector, and that no other table is left."""
    rows = spark.table(table).orderBy("id").collect()
    assert [(row.id, row.text) for row in rows] == sorted(texts.items())
    assert_embedded(model, instruction, [row.text for row in rows], [row.vector for row in rows])
    assert not spark.catalog.tableExists(f"{table}_unmerged")


def start_counter(spark):
    """Return an object that counts the rows that the Python workers embed from now on."""
    return _RowCounter(spark._jsparkSession.sharedState().statusStore())


def test_updates(spark, update, table, tiny_model):
    """Every new or changed row is embedded once, and no other row."""
    counter = start_counter(spark)
    texts = {i: f"text {i}" for i in range(6)} | {6: None, 7: ""}
    assert update(texts) == Changes(new=8)
    assert_table(spark, table, tiny_model, texts)
    assert update(texts) == Changes(unchanged=8)
    changed = {1: "another", 7: None, 8: "new"}
    assert update(changed) == Changes(new=1, changed=2, absent=6)
    assert_table(spark, table, tiny_model, texts | changed)
    assert update({8: "new", 0: "text 0"}, delete_absent=True) == Changes(unchanged=2, absent=7)
    assert_table(spark, table, tiny_model, {0: "text 0", 8: "new"})
    assert counter.count_finally() == 8 + 3


def test_another_model_and_instruction(spark, stage, update, table, tiny_model):
    """Rows of different models or instructions never share a table, and its property says which it has."""

    def read_property():
        (row,) = spark.sql(f"SHOW TBLPROPERTIES {table}").where(F.col("key") == PROVENANCE).collect()
        return json.loads(row.value)

    texts = {1: "one", 2: "two"}
    update(texts)
    assert (
        read_property()
        == stage.transform(spark.createDataFrame([("",)], "text string")).schema["vector"].metadata[PROVENANCE]
    )
    quoted = 'It\'s \\ "quoted": '
    with pytest.raises(ValueError, match=r"1 rows of .* were embedded with another instruction"):
        update({1: "one"}, stage.copy().setInstruction(quoted))
    assert update(texts, stage.copy().setInstruction(quoted)) == Changes(changed=2)
    assert read_property()["instruction"] == quoted
    assert_table(spark, table, tiny_model, texts, quoted)
    with pytest.raises(ValueError, match=r"1 rows of .* were embedded with another model"):
        update({1: "one"}, stage.copy().setPrecision("bfloat16"))
    assert update({1: "one"}, stage.copy().setPrecision("bfloat16"), delete_absent=True) == Changes(changed=1, absent=1)
    assert read_property()["precision"] == "bfloat16"


def test_columns_of_all_kinds(spark, stage, table, provider, tiny_model):
    """The reasons of errors are stored too, a column may be named like a property, and no type changes silently."""
    source = spark.sql("SELECT 1 AS id, 'one' AS text, 'x' AS Provider, 2Y AS small")
    stage = stage.copy().setErrorCol("reason")
    if provider == "iceberg":
        with pytest.raises(ValueError, match=r"a table of format iceberg does not keep the type of .*: small. Cast"):
            embed_table(source, table, "id", stage, provider=provider)
        assert not spark.catalog.tableExists(table)
        source = source.drop("small")
    assert embed_table(source, table, "id", stage, provider=provider) == Changes(new=1)
    assert embed_table(source, table, "id", stage) == Changes(unchanged=1)
    assert spark.table(table).first().reason is None
    assert_table(spark, table, tiny_model, {1: "one"})


def test_a_stream(spark, stage, table, provider, tiny_model, tmp_path):
    """foreachBatch may get a batch again; only what is new is embedded."""
    spark.createDataFrame([(1, "one"), (2, "two")], "id int, text string").write.json(str(tmp_path / "texts"))
    changes = []

    def embed_batch(rows, number):
        changes.append(embed_table(rows, table, "id", stage, provider=provider))

    def run(checkpoint):
        texts = spark.readStream.schema("id int, text string").json(str(tmp_path / "texts"))
        writer = texts.writeStream.foreachBatch(embed_batch).option("checkpointLocation", str(tmp_path / checkpoint))
        writer.trigger(availableNow=True).start().awaitTermination()

    run("first")
    run("again")
    assert changes == [Changes(new=2), Changes(unchanged=2)]
    assert_table(spark, table, tiny_model, {1: "one", 2: "two"})


def test_what_is_refused(spark, stage, update, table, provider):
    source = spark.createDataFrame([(1, "one")], "id int, text string")
    with pytest.raises(ValueError, match="is a table of format parquet, and Spark cannot merge rows into it"):
        embed_table(source, "spark_catalog.default.files", "id", stage, provider="parquet")
    assert not spark.catalog.tableExists("spark_catalog.default.files")
    with pytest.raises(ValueError, match="2 rows, but 1 distinct and non-null values of the key id"):
        embed_table(spark.createDataFrame([(1, "a"), (1, "b")], "id int, text string"), table, "id", stage)
    assert not spark.catalog.tableExists(table)
    update({1: "one"})
    source = spark.createDataFrame([(1, "one", 2)], "id int, text string, n int")
    with pytest.raises(ValueError, match="these differ: n"):
        embed_table(source, table, "id", stage)
    for kind, view in (("", "spark_catalog.default.texts"), ("TEMPORARY", "own_texts")):
        spark.sql(f"CREATE OR REPLACE {kind} VIEW {view} AS SELECT * FROM {table}")
        with pytest.raises(ValueError, match=f"{view} is a view, and Spark cannot merge rows into a view"):
            embed_table(source, view, "id", stage)
    spark.sql(f"ALTER TABLE {table} ADD COLUMN n int")
    assert embed_table(source, table, "id", stage) == Changes(unchanged=1)


def test_the_command_line(spark, capsys, table, provider, tiny, tiny_model, tmp_path):
    """The second call embeds nothing, and a row that the input no longer has is deleted if asked for."""
    texts = {i: f"text {i}" for i in range(3)}

    def embed(*arguments):
        rows = [json.dumps({"id": i, "text": text}) for i, text in texts.items()]
        (tmp_path / "in.jsonl").write_text("\n".join(rows))
        options = ["--model", tiny, "--instruction", INSTRUCTION, "--key", "id", "--table", table, *arguments]
        code = cli.main(["embed", *map(str, [tmp_path / "in.jsonl", *options])])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert captured.out.endswith(f"Wrote {table}\n")
        return [
            int(count)
            for count in re.findall(r"^  (?:new|changed|unchanged|absent) +(\d+)", captured.out, re.MULTILINE)
        ]

    counter = start_counter(spark)
    assert embed("--provider", provider) == [3, 0, 0, 0]
    assert embed() == [0, 0, 3, 0]
    assert counter.count_finally() == 3
    assert_table(spark, table, tiny_model, texts)
    del texts[1]
    assert embed("--delete-absent") == [0, 0, 2, 1]
    assert_table(spark, table, tiny_model, texts)


def test_rows_that_an_earlier_call_left(spark, stage, update, table, provider, tiny_model):
    """What a killed call left is used if it is still wanted, and dropped if another stage made it."""
    source = spark.createDataFrame([(1, "one")], "id int, text string")
    source.select("id", F.lit("x").alias(FINGERPRINT), F.array().cast("array<float>").alias("vector")).writeTo(
        f"{table}_unmerged"
    ).using(provider).create()
    assert update({1: "one", 2: "two"}) == Changes(new=2)
    source.withColumn("other", F.lit(1)).writeTo(f"{table}_unmerged").using(provider).create()
    assert update({3: "three"}) == Changes(new=1, absent=2)
    assert_table(spark, table, tiny_model, {1: "one", 2: "two", 3: "three"})


@pytest.mark.parametrize("moment", ["embedding", "merging"])
def test_killed_and_called_again(spark, stage, provider, warehouse, tiny, tiny_model, moment):
    """The next call embeds only what is left, and the table then contains every row once."""
    table = name_table(provider, warehouse, "killed")
    command = [sys.executable, JOB, tiny, provider, warehouse, moment]
    assert subprocess.run(list(map(str, command)), env=changed_environment()).returncode == -9
    counter = start_counter(spark)
    plain = stage.copy().setInstruction("")
    changes = embed_table(make_source(spark), table, "id", plain, provider=provider)
    embedded = counter.count_finally()
    assert changes.new + changes.unchanged == ROWS
    assert 0 < embedded < ROWS if moment == "embedding" else embedded == 0
    rows = spark.table(table).orderBy("id").collect()
    assert [row.id for row in rows] == list(range(ROWS))
    assert_embedded(tiny_model, "", [row.text for row in rows], [row.vector for row in rows])
    assert embed_table(make_source(spark), table, "id", plain) == Changes(unchanged=ROWS)
    unmerged = tables._name_unmerged(table)
    assert not tables._exists(spark, unmerged) or spark.table(unmerged).isEmpty()
    spark.sql(f"DELETE FROM {table}")
