"""embed_changes and rows_to_embed: which rows are embedded or left alone, and what the target then contains."""

import json
import re

import pyspark
import pytest
from checkpoints import write_checkpoint
from pyspark.sql import functions as F
from vectors import assert_embedded

from spark_instructor import DocumentAssembler, InstructorEmbeddings, incremental
from spark_instructor.encoder import InstructorModel
from spark_instructor.fingerprints import FINGERPRINT, Changes, count_changes, rows_to_embed
from spark_instructor.incremental import PART, embed_changes

INSTRUCTION = "Represent: "
PARTS = 2
ROWS = 8  # enough that each part has some rows


@pytest.fixture
def stage(tiny):
    return InstructorEmbeddings(model=str(tiny), instruction=INSTRUCTION, inputCols="text", outputCol="vector")


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "target")


@pytest.fixture
def update(spark, stage, target):
    """Return a function that embeds texts by id into the target, optionally with other Params of the stage."""

    def run(texts, **changes):
        source = spark.createDataFrame(list(texts.items()), "id int, text string")
        return embed_changes(source, target, "id", stage.copy()._set(**changes), parts=PARTS)

    return run


def texts_of(ids, word="text"):
    return {i: f"{word} {i}" for i in ids}


def assert_target(spark, target, model, texts, instruction=INSTRUCTION):
    rows = spark.read.parquet(target).orderBy("id").collect()
    assert [(row.id, row.text) for row in rows] == sorted(texts.items())
    assert_embedded(model, instruction, [row.text for row in rows], [row.vector for row in rows])


def files_of(tmp_path):
    return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def count_jobs(files):
    """Return the number of Spark jobs that wrote the files, from their names, such as part-00000-JOB.c000.parquet."""
    return len({path.name.split("-", 2)[2].split(".")[0] for path in files})


def test_a_second_run_embeds_nothing(spark, update, target, tiny_model, tmp_path):
    texts = texts_of(range(ROWS))
    assert update(texts) == Changes(new=ROWS)
    written = files_of(tmp_path)
    assert len({path.parent for path in written}) == PARTS
    assert count_jobs(written) == 1
    assert update(texts) == Changes(unchanged=ROWS)
    assert files_of(tmp_path) == written
    assert_target(spark, target, tiny_model, texts)


def test_new_rows_are_added_to_files_that_stay(spark, update, target, tiny_model, tmp_path):
    update(texts_of(range(6)))
    written = files_of(tmp_path)
    assert update(texts_of(range(3, 8))) == Changes(new=2, unchanged=3, absent=3)
    assert written.items() <= files_of(tmp_path).items()
    assert_target(spark, target, tiny_model, texts_of(range(8)))


def test_changed_texts_take_the_place_of_the_old(spark, update, target, tiny_model):
    texts = texts_of(range(ROWS))
    update(texts)
    before = {row.id: row.vector for row in spark.read.parquet(target).collect()}
    changed = texts_of([3, 5, 7], "another text")
    assert update({**texts_of(range(2, ROWS + 2)), **changed}) == Changes(new=2, changed=3, unchanged=3, absent=2)
    assert_target(spark, target, tiny_model, {**texts_of(range(ROWS + 2)), **changed})
    after = {row.id: row.vector for row in spark.read.parquet(target).collect()}
    assert all(after[i] == before[i] for i in texts if i not in changed)  # copied, not embedded again


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_settings(update):
    """Rows are embedded again after a change to a setting that affects the vectors, but not to any other setting."""
    texts, settings = texts_of(range(3)), {}
    update(texts)
    for changes in ({"instruction": "Another: "}, {"precision": "bfloat16"}, {"maxSentenceLength": 12}):
        settings |= changes
        assert update(texts, **settings) == Changes(changed=3), changes
    for changes in ({"batchSize": 2}, {"device": "cpu"}):
        assert update(texts, **settings, **changes) == Changes(unchanged=3), changes
    assert update(texts, **settings, longText="average") == Changes(changed=3)


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_another_model(spark, update, target, tmp_path):
    folder = write_checkpoint(tmp_path / "other", dimension=64, seed=1)
    update(texts_of(range(6)))
    other = InstructorModel.from_pretrained(folder)
    with pytest.raises(
        ValueError, match=rf"2 rows of {re.escape(target)} are not in the source and were embedded with"
    ):
        update(texts_of(range(4)), model=str(folder))
    assert update(texts_of(range(6)), model=str(folder)) == Changes(changed=6)
    assert_target(spark, target, other, texts_of(range(6)))


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_another_instruction(update):
    """A target has one instruction, unless a column gives each row its own."""
    update(texts_of(range(6)))
    with pytest.raises(ValueError, match=r"2 rows of .* were embedded with another instruction.*set instructionCol"):
        update(texts_of(range(4)), instruction="Another: ")
    assert update(texts_of(range(6)), instruction="Another: ") == Changes(changed=6)
    assert update(texts_of(range(4)), instruction="Another: ") == Changes(unchanged=4, absent=2)


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_an_instruction_for_each_row(spark, stage, target):
    stage = stage.setInstructionCol("why")
    source = spark.createDataFrame([(1, "text", "a: "), (2, "text", "b: ")], "id int, text string, why string")
    assert embed_changes(source, target, "id", stage) == Changes(new=2)
    source = source.withColumn("why", F.when(F.col("id") == 1, "c: ").otherwise(F.col("why")))
    assert embed_changes(source, target, "id", stage) == Changes(changed=1, unchanged=1)
    assert embed_changes(source.where("id = 1"), target, "id", stage) == Changes(unchanged=1, absent=1)


@pytest.mark.one_kind
def test_null_is_not_empty(spark, update, target, tiny_model):
    assert update({1: None, 2: "", 3: "text"}) == Changes(new=3)
    spark.conf.set("spark.sql.jsonGenerator.ignoreNullFields", "false")
    try:
        assert update({1: None, 2: "", 3: "text"}) == Changes(unchanged=3), "a setting of the session"
    finally:
        spark.conf.unset("spark.sql.jsonGenerator.ignoreNullFields")
    assert update({1: "", 2: None, 3: "text"}) == Changes(changed=2, unchanged=1)
    assert_target(spark, target, tiny_model, {1: "", 2: None, 3: "text"})


@pytest.mark.one_kind
def test_keys_of_several_columns_with_dots_and_spaces(spark, stage, target):
    rows = [("a", 1, "one"), ("a", 2, "two"), ("b", 1, "three")]
    source = spark.createDataFrame(rows, "`doc.id` string, `page no` int, text string")
    keys = ["doc.id", "page no"]
    assert embed_changes(source, target, keys, stage) == Changes(new=3)
    changed = source.withColumn("text", F.when(F.col("page no") == 2, "deux").otherwise(F.col("text")))
    assert embed_changes(changed, target, keys, stage) == Changes(changed=1, unchanged=2)
    stored_rows = spark.read.parquet(target).select("`doc.id`", "`page no`", "text").collect()
    assert sorted(map(tuple, stored_rows)) == [("a", 1, "one"), ("a", 2, "deux"), ("b", 1, "three")]


@pytest.mark.exhaustive
@pytest.mark.one_kind
@pytest.mark.skipif(pyspark.__version__ < "4", reason="collations came with Spark 4")
@pytest.mark.parametrize("key_columns", ["key", ["key", "site"]])
def test_keys_under_a_case_insensitive_collation(spark, stage, target, key_columns):
    """A key in another case is the same key, although its hash is another."""
    keys = [f"key-{i}" for i in range(ROWS)]

    def update(keys, text):
        rows = [(i % 3, key, f"{text} {key}") for i, key in enumerate(keys)]
        source = spark.createDataFrame(rows, "site int, key string, text string")
        source = source.withColumn("key", F.expr("key COLLATE UTF8_LCASE"))
        return embed_changes(source, target, key_columns, stage, parts=8)

    assert update(keys, "text") == Changes(new=ROWS)
    assert update([key.upper() for key in keys], "changed") == Changes(changed=ROWS)
    assert sorted(row.key for row in spark.read.parquet(target).collect()) == sorted(key.upper() for key in keys)
    assert update([*keys, "key-8"], "changed again") == Changes(new=1, changed=ROWS)
    assert update([*keys, "key-8"], "changed again") == Changes(unchanged=ROWS + 1)
    written_parts = spark.read.parquet(target).select(PART).distinct().count()
    assert (written_parts == 1) == (key_columns == "key")


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_output_cols(spark, stage, target):
    stage = InstructorEmbeddings(model=stage.getModel(), inputCols=["text"], outputCols=["vector"])
    source = spark.createDataFrame([(1, "a")], "id int, text string")
    assert embed_changes(source, target, "id", stage) == Changes(new=1)
    assert embed_changes(source, target, "id", stage) == Changes(unchanged=1)


@pytest.mark.exhaustive
@pytest.mark.one_kind
@pytest.mark.parametrize("name", ["__old_key_0", "__old_part", "__old_fingerprint", "__kind"])
def test_any_name_of_a_column(spark, stage, target, name):
    source = spark.createDataFrame([(1, "a", "b")], f"id int, text string, {name} string")
    assert embed_changes(source, target, "id", stage, parts=1) == Changes(new=1)
    assert embed_changes(source, target, "id", stage) == Changes(unchanged=1)
    changed = source.withColumn("text", F.lit("c"))
    assert embed_changes(changed, target, "id", stage) == Changes(changed=1)


@pytest.mark.one_kind
def test_a_first_run_that_wrote_nothing(update, target, tmp_path):
    """The target is in the state that a killed run leaves if it has not written any part yet."""
    (tmp_path / "target" / "_temporary" / "0").mkdir(parents=True)
    assert update(texts_of(range(3))) == Changes(new=3)


@pytest.mark.one_kind
def test_what_a_killed_job_had_not_committed(spark, update, target, tiny_model, tmp_path):
    """A killed job leaves the files of its finished tasks where Hadoop's committer could add them to the next job."""
    update(texts_of(range(4)))
    task_folder = tmp_path / "target" / "_temporary" / "0" / "task_202601010000000000000000000000000_0001_m_000000"
    for path in [*(tmp_path / "target").glob("part=*/*.parquet")]:
        copy = task_folder / path.parent.name / f"killed-{path.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert update(texts_of(range(ROWS))) == Changes(new=ROWS - 4, unchanged=4)
    assert_target(spark, target, tiny_model, texts_of(range(ROWS)))


@pytest.mark.one_kind
def test_no_rows(spark, update, target):
    assert update({}) == Changes()
    assert update(texts_of(range(2))) == Changes(new=2)
    assert update({}) == Changes(absent=2)


@pytest.mark.exhaustive
@pytest.mark.one_kind
@pytest.mark.parametrize("name", ["v[1]", "v{a,b}", "v*", "v\\1"])
def test_targets_that_readers_take_for_patterns(spark, stage, tmp_path, name):
    source = spark.createDataFrame([(1, "a")], "id int, text string")
    (tmp_path / "v1").mkdir()
    target = str(tmp_path / name)
    assert embed_changes(source, target, "id", stage, parts=1) == Changes(new=1)
    assert embed_changes(source, target, "id", stage, parts=1) == Changes(unchanged=1)


@pytest.mark.one_kind
def test_many_rows_take_a_job_per_part(update, tmp_path, monkeypatch):
    monkeypatch.setattr(incremental, "_ROWS_PER_JOB", 4)
    assert update(texts_of(range(ROWS))) == Changes(new=ROWS)
    assert count_jobs(files_of(tmp_path)) == PARTS


@pytest.mark.one_kind
def test_parts_that_are_not_inferred(spark, update, target, tiny_model):
    update(texts_of(range(ROWS)))
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    try:
        assert update({**texts_of(range(ROWS)), 1: "another"}) == Changes(changed=1, unchanged=ROWS - 1)
    finally:
        spark.conf.unset("spark.sql.sources.partitionColumnTypeInference.enabled")
    assert_target(spark, target, tiny_model, {**texts_of(range(ROWS)), 1: "another"})


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_a_source_that_moves(spark, stage, target, tiny_model, tmp_path, monkeypatch):
    """A row that changes between two reads of the source appears once, and the next call replaces it."""

    def source_of(texts):
        rows = [json.dumps({"id": i, "text": text}) for i, text in texts.items()]
        (tmp_path / "source.json").write_text("\n".join(rows))
        return spark.read.schema("id int, text string").json(str(tmp_path / "source.json"))

    def count_and_move(*args):
        counts = count_changes(*args)
        source_of({1: "moved", 2: "texts"})
        return counts

    embed_changes(source_of({1: "a row"}), target, "id", stage, parts=1)
    source = source_of({1: "a row", 2: "texts"})
    with monkeypatch.context() as patched:
        patched.setattr("spark_instructor.incremental.count_changes", count_and_move)
        assert embed_changes(source, target, "id", stage) == Changes(new=1, unchanged=1)
    assert_target(spark, target, tiny_model, {1: "a row", 2: "texts"})
    assert embed_changes(source, target, "id", stage) == Changes(changed=1, unchanged=1)
    assert_target(spark, target, tiny_model, {1: "moved", 2: "texts"})


def assert_refused(source, target, stage, message, key="id", **parts):
    with pytest.raises(ValueError, match=message):
        embed_changes(source, target, key, stage, **parts)


@pytest.mark.one_kind
@pytest.mark.parametrize("ids", [[1, 2, 2], [1, 2, None]], ids=["twice", "null"])
def test_keys_that_tell_no_row_apart(spark, stage, target, ids):
    source = spark.createDataFrame([(i, "text") for i in ids], "id int, text string")
    assert_refused(source, target, stage, "3 rows, but 2 distinct and non-null values of the key id")


@pytest.mark.one_kind
def test_bad_input(spark, stage, target):
    source = spark.createDataFrame([(1, "a", "b")], "id int, text string, other string")
    assert_refused(source, target, stage, "there is no column 'nr'", key="nr")
    assert_refused(source, target, stage, "key is empty, expected the name of a column", key=[])
    assert_refused(source, target, stage, "parts is 0, expected at least 1", parts=0)
    assert_refused(source, target, stage.copy().setInputCols("txt"), "there is no column 'txt'")
    assert_refused(source.withColumn(PART, F.lit(1)), target, stage, "'part' exists already")
    two_columns = InstructorEmbeddings(model=stage.getModel(), inputCols=["text", "other"], outputCols=["v", "w"])
    assert_refused(
        source,
        target,
        two_columns,
        r"only one column can be embedded, but the stage has the inputCols \['text', 'other'\]",
    )
    for name in ("Part", "FINGERPRINT", "Vector"):
        assert_refused(source.withColumn(name, F.lit("x")), target, stage, f"exists already as '{name}'")
    documents = DocumentAssembler(inputCol="text", outputCol="documents").transform(source)
    assert_refused(
        documents, target, stage.copy().setInputCols("documents"), "'documents' is array of annotations, expected"
    )


@pytest.mark.one_kind
def test_targets_of_others(spark, stage, target):
    source = spark.createDataFrame([(1, "a")], "id int, text string")
    source.write.parquet(target)
    assert_refused(
        source, target, stage, "was not written by embed_changes: it has no columns 'fingerprint' and 'part'"
    )
    source.write.csv(f"{target}-csv")
    assert_refused(
        source, f"{target}-csv", stage, "was not written by embed_changes: it contains a file that is not Parquet"
    )


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_targets_that_others_wrote_to(spark, stage, target):
    source = spark.createDataFrame([(1, "a")], "id int, text string")
    embed_changes(source, target, "id", stage, parts=1)
    rows = spark.read.parquet(target)
    rows.drop(PART).write.mode("append").parquet(f"{target}/{PART}=0")
    assert_refused(source, target, stage, "target has 2 rows, but 1 distinct and non-null values of the key id")
    rows.withColumn(FINGERPRINT, F.upper(FINGERPRINT)).write.partitionBy(PART).parquet(f"{target}-2")
    assert_refused(source, f"{target}-2", stage, "lost the metadata of its column 'fingerprint'")


@pytest.mark.one_kind
def test_other_columns(spark, stage, target):
    source = spark.createDataFrame([(1, "a")], "id int, text string")
    embed_changes(source, target, "id", stage)
    assert_refused(source.withColumn("n", F.lit(1)), target, stage, "these differ: n. Select")
    assert_refused(source, target, stage.copy().setOutputCol("v"), "these differ: v, vector. Select")


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_columns_that_differ_by_case(spark, stage, target, tiny_model):
    """As in Spark, they are the same, and the target keeps the names that it has."""
    embed_changes(spark.createDataFrame([(1, "one"), (2, "two")], "id int, text string"), target, "id", stage)
    source = spark.createDataFrame([("one", 1), ("zwei", 2), ("three", 3)], "Text string, ID int")
    assert embed_changes(source, target, "Id", stage) == Changes(new=1, changed=1, unchanged=1)
    rows = spark.read.parquet(target).orderBy("id")
    assert rows.columns == ["id", "text", FINGERPRINT, "vector", PART]
    texts, vectors = zip(*((row.text, row.vector) for row in rows.collect()), strict=True)
    assert texts == ("one", "zwei", "three")
    assert_embedded(tiny_model, INSTRUCTION, texts, vectors)


@pytest.mark.exhaustive
@pytest.mark.one_kind
@pytest.mark.parametrize("string", ["'One' COLLATE UTF8_LCASE", "CAST('One' AS CHAR(5))", "CAST('One' AS VARCHAR(5))"])
def test_whatever_spark_treats_as_a_string(spark, stage, target, string):
    """A change of case is a change, whatever the collation."""
    if spark.version < "4":
        pytest.skip("Spark 3.5 has only plain strings here")
    name = "spark.sql.preserveCharVarcharTypeInfo"
    spark.conf.set(name, "true")
    try:
        stage = stage.copy().setInstructionCol("why")
        source = spark.sql(f"SELECT 1 AS id, {string} AS text, {string} AS why")
        assert embed_changes(source, target, "id", stage) == Changes(new=1)
        assert embed_changes(source, target, "id", stage) == Changes(unchanged=1)
        for column in ("text", "why"):
            changed = source.withColumn(column, F.upper(column).cast(source.schema[column].dataType))
            assert embed_changes(changed, target, "id", stage) == Changes(changed=1)
    finally:
        spark.conf.unset(name)


@pytest.mark.one_kind
def test_the_target_says_what_made_it(spark, update, target):
    update(texts_of(range(3)))
    schema = spark.read.parquet(target).schema
    assert schema["vector"].metadata["spark_instructor"]["instruction"] == INSTRUCTION
    assert schema[FINGERPRINT].metadata == {"parts": PARTS}


def test_rows_to_embed(spark, stage, tiny_model, tmp_path):
    """The caller may write the table itself, in any column order and without the text column."""
    texts = {1: "one", 2: None, 3: "three"}
    source = spark.createDataFrame(list(texts.items()), "id int, text string")
    all_rows = rows_to_embed(source, None, "id", stage)
    assert all_rows.columns == ["id", "text", FINGERPRINT]
    stage.transform(all_rows).select("vector", FINGERPRINT, "id").write.parquet(str(tmp_path / "table"))
    table = spark.read.parquet(str(tmp_path / "table"))
    assert rows_to_embed(source, table, "id", stage).collect() == []

    new_source = spark.createDataFrame([(1, "one"), (3, "drei"), (4, "four")], "id int, text string")
    rows_to_replace = rows_to_embed(new_source, table, "id", stage)
    rows = stage.transform(rows_to_replace).orderBy("id").collect()
    assert [row.id for row in rows] == [3, 4]
    assert_embedded(tiny_model, INSTRUCTION, ["drei", "four"], [row.vector for row in rows])
    for changed in (stage.copy().setInstruction("Another: "), stage.copy().setOutputType("half")):
        assert rows_to_embed(source, table, "id", changed).count() == 3


@pytest.mark.one_kind
def test_rows_to_embed_of_bad_input(spark, stage):
    source = spark.createDataFrame([(1, "a"), (1, "b")], "id int, text string")
    with pytest.raises(ValueError, match="2 rows, but 1 distinct and non-null values of the key id"):
        rows_to_embed(source, None, "id", stage)
    for lacks, target in {"id": "nr int, fingerprint string", FINGERPRINT: "id int, vector array<float>"}.items():
        with pytest.raises(ValueError, match=f"the target: there is no column '{lacks}'"):
            rows_to_embed(source, spark.createDataFrame([], target), "id", stage)
