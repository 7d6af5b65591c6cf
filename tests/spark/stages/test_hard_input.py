"""Unusual texts, arrays, columns and frames: each row gets the vector that its text would get by itself."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegerType, StringType, StructField, StructType
from vectors import TOLERANCE, assert_embedded

from spark_instructor import DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings

INSTRUCTION = "Represent: "
MEGABYTES = 10_000_000

HARD = {
    "null": None,
    "empty": "",
    "blank": " \t\n ",
    "control characters": "a\x00b\x01\x1f\x7f\x85c",
    "right to left": "שלום עולם, مرحبا \u202eabc\u202c",
    "emoji sequences": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪",
    "end of sequence": "before </s> after </s></s>",
    "pad": "<pad><pad> text <pad>",
    "unknown": "<unk> <extra_id_0> <extra_id_99>",
    "no letters": "\u200b\ufeff\u2028\u2029\u00ad",
    "combining": "e\u0301" * 50 + "\u0300" * 50,
    "other scripts": "漢字 かな 한글 ไทย ᚠᛇᚻ 𝔘𝔫𝔦",
    "private and unassigned": "\ue000\U0010ffff\u0378",
    "json": '{"a": "b\\n", \'c\': [1]}',
    "one long word": "abc" * 5000,
    "many words": "many words " * 3000,
}


@pytest.fixture
def stage(tiny):
    return InstructorEmbeddings(model=str(tiny), instruction=INSTRUCTION, inputCols="text", outputCol="vector")


@pytest.mark.parametrize("partitions", [1, 5])
def test_hard_texts(spark, stage, tiny_model, partitions):
    rows = spark.createDataFrame(list(enumerate(HARD.values())), "id int, text string").repartition(partitions)
    output = sorted(stage.transform(rows).collect(), key=lambda row: row.id)
    assert [row.text for row in output] == list(HARD.values())
    assert_embedded(tiny_model, INSTRUCTION, list(HARD.values()), [row.vector for row in output])


def test_lone_surrogates(spark, stage, tiny_model):
    """UTF-8 cannot represent a lone surrogate; Spark replaces it, and the replaced text is embedded."""
    try:
        texts = spark.createDataFrame([("a\ud800b",)], "text string")
    except UnicodeEncodeError:
        pytest.skip("pyspark refuses them on Spark Connect")
    (row,) = stage.transform(texts).collect()
    assert row.text == "a\ufffdb"
    assert_embedded(tiny_model, INSTRUCTION, [row.text], [row.vector])


@pytest.mark.one_kind
def test_bytes_that_are_no_text(spark, stage):
    """Spark can cast any binary to a string; if the bytes are not UTF-8, the job fails and embeds nothing instead."""
    with pytest.raises(Exception, match=r"(?i)utf-8|Wrapping"):
        stage.transform(spark.sql("SELECT CAST(X'61FF62' AS STRING) AS text")).collect()


@pytest.mark.one_kind
@pytest.mark.parametrize("long_text", ["truncate", "average"])
def test_ten_megabytes(spark, stage, tiny_model, long_text):
    """Very long texts are embedded, and so are their neighbors; Spark generates the texts, so none are sent to it."""
    texts = spark.sql(
        f"SELECT 0 AS id, repeat('the cat sat on a mat ', {MEGABYTES // 21}) AS text UNION ALL "
        f"SELECT 1, repeat(' ', {MEGABYTES // 10}) UNION ALL SELECT 2, repeat('a', {MEGABYTES}) UNION ALL "
        "SELECT 3, 'short'"
    )
    output = stage.setLongText(long_text).transform(texts.coalesce(1)).select("id", "vector").orderBy("id").collect()
    equivalents = ["the cat sat on a mat " * 20_000, "", "a" * 300_000, "short"]
    expected = tiny_model.encode(INSTRUCTION, equivalents, long_text=long_text)
    np.testing.assert_allclose([row.vector for row in output], expected, atol=TOLERANCE, rtol=0)


@pytest.mark.one_kind
def test_a_hundred_thousand_elements(spark, stage, tiny_model):
    texts = spark.sql("SELECT transform(sequence(1, 100000), i -> concat('text ', i % 50)) AS text")
    (row,) = stage.transform(texts).collect()
    assert len(row.vector) == 100_000
    expected = tiny_model.encode(INSTRUCTION, [f"text {i}" for i in range(50)])
    sample = range(0, 100_000, 997)
    vectors = np.array([row.vector[i] for i in sample])
    np.testing.assert_allclose(vectors, expected[[(i + 1) % 50 for i in sample]], atol=TOLERANCE, rtol=0)


@pytest.mark.one_kind
def test_a_row_of_ten_thousand_sentences(spark, stage, tiny_model):
    """One row has 10,000 annotations, and the rows next to it have one each."""
    rows = [(0, "one"), (1, "\n".join(f"sentence {i % 40}" for i in range(10_000))), (2, "two")]
    lines = spark.createDataFrame(rows, "id int, text string").select("id", F.split("text", "\n").alias("lines"))
    documents = DocumentAssembler(inputCol="lines", outputCol="documents").transform(lines.coalesce(1))
    output = stage.setInputCols("documents").transform(documents).orderBy("id").collect()
    assert [len(row.vector) for row in output] == [1, 10_000, 1]
    for row in output:
        texts = [annotation.result for annotation in row.vector[:80]]
        assert texts == row.lines[:80]
        assert_embedded(tiny_model, INSTRUCTION, texts, [annotation.embeddings for annotation in row.vector[:80]])


@pytest.mark.parametrize("name", ["a.b", "a b", "a`b", "a.b.c d", "`", "ä€漢", "text.vector", "SELECT", "_1", " "])
def test_column_names(spark, stage, tiny_model, name):
    schema = StructType(
        [StructField(name, StringType()), StructField("a", StructType([StructField("b", StringType())]))]
    )
    texts = spark.createDataFrame([("one", ("x",)), (None, None)], schema)
    embedded = stage.setInputCols(name).setOutputCol(f"{name}.out").transform(texts)
    assert embedded.columns == [name, "a", f"{name}.out"]
    assert_embedded(tiny_model, INSTRUCTION, ["one", None], [row[2] for row in embedded.collect()])


@pytest.mark.one_kind
def test_no_rows(spark, stage):
    empty = spark.createDataFrame([], "text string")
    assert stage.transform(empty).collect() == []
    assert stage.transform(empty.repartition(3)).toPandas().shape == (0, 2)


def test_empty_partitions(spark, stage, tiny_model):
    texts = spark.createDataFrame([("one",), ("two",)], "text string").repartition(9)
    output = stage.transform(texts).collect()
    assert_embedded(tiny_model, INSTRUCTION, [row.text for row in output], [row.vector for row in output])


@pytest.mark.one_kind
@pytest.mark.parametrize("type_", [StringType(), ArrayType(StringType())], ids=str)
def test_all_null(spark, stage, type_):
    schema = StructType([StructField("id", IntegerType()), StructField("text", type_)])
    texts = spark.createDataFrame([(i, None) for i in range(7)], schema)
    assert [row.vector for row in stage.transform(texts).collect()] == [None] * 7


KINDS_OF_STRINGS = {
    "void": "NULL",
    "collated": "'One \\\\t Text' COLLATE UTF8_LCASE",
    "collated by ICU": "'One \\\\t Text' COLLATE UNICODE_CI",
    "char": "CAST('One' AS CHAR(5))",
    "varchar": "CAST('One' AS VARCHAR(5))",
}


@pytest.fixture
def keeps_char_and_varchar(spark):
    """Let Spark keep the types char and varchar, which it otherwise replaces with string."""
    name = "spark.sql.preserveCharVarcharTypeInfo"
    spark.conf.set(name, "true")
    yield
    spark.conf.unset(name)


@pytest.mark.parametrize("kind", KINDS_OF_STRINGS)
def test_whatever_spark_treats_as_a_string(spark, stage, tiny_model, keeps_char_and_varchar, kind):
    """Each kind is taken as texts, as instructions, as an id and as metadata, and no collation ignores case."""
    if spark.version < "4" and kind != "void":
        pytest.skip("Spark 3.5 has only plain strings here")
    string = KINDS_OF_STRINGS[kind]
    frame = spark.sql(
        f"SELECT {string} AS text, array({string}) AS texts, map('k', {string}) AS entries, array() AS no"
    )
    assert all("string," not in field.dataType.simpleString() + "," for field in frame.schema[:2])
    ((text, texts, entries, _),) = frame.collect()
    instructed = (
        stage.copy().setInstructionCol("text").setInputCols("text", "texts", "no").setOutputCols("v", "vs", "n")
    )
    (row,) = instructed.transform(frame).collect()
    assert_embedded(tiny_model, text or "", [text, *texts], [row.v, *row.vs])
    assert row.n == []

    documents = DocumentAssembler(
        inputCol="texts", outputCol="documents", idCol="text", metadataCol="entries", cleanupMode="inplace_full"
    ).transform(frame)
    annotations = stage.copy().setInputCols("documents").transform(documents)
    (row,) = EmbeddingsFinisher(inputCols="vector", outputCols="finished").transform(annotations).collect()
    (document,) = row.documents
    cleaned = (text or "").replace("\\t", " ")
    assert (document.result, document.metadata) == (cleaned, {"k": entries["k"], "sentence": "0", "id": text})
    assert_embedded(tiny_model, INSTRUCTION, [cleaned] if text else [], row.finished)


@pytest.mark.one_kind
def test_annotations_of_collated_strings(spark, stage, tiny_model):
    """The default collation of a table applies to the strings inside its structs."""
    if spark.version < "4":
        pytest.skip("collations came with Spark 4.0")
    string = "STRING COLLATE UTF8_LCASE"
    fields = f"annotatorType: {string}, begin: INT, end: INT, result: {string}, metadata: MAP<{string}, {string}>"
    frame = spark.sql(
        "SELECT CAST(array(struct('document', 0, 2, 'One', map('TOKENS', '1', 'tokens', '2'), array())) "
        f"AS ARRAY<STRUCT<{fields}, embeddings: ARRAY<FLOAT>>>) AS documents"
    )
    ((annotation,),) = stage.setInputCols("documents").transform(frame).select("vector").first()
    assert (annotation.result, annotation.metadata) == ("One", {"TOKENS": "1", "tokens": annotation.metadata["tokens"]})
    assert_embedded(tiny_model, INSTRUCTION, ["One"], [annotation.embeddings])


@pytest.mark.one_kind
def test_empty_collections_of_strings(spark, stage, tiny_model):
    """With this setting, as in Spark 2, array() and map() hold strings, and a cast turns them into nothing else."""
    name = "spark.sql.legacy.createEmptyCollectionUsingStringType"
    spark.conf.set(name, "true")
    try:
        texts = spark.createDataFrame([("one",), (None,)], "text string").coalesce(1)
        documents = DocumentAssembler(inputCol="text", outputCol="documents").transform(texts)
        annotations = stage.setInputCols("documents").transform(documents)
        for as_vector in (False, True):
            finisher = EmbeddingsFinisher(inputCols="vector", outputCols="finished", outputAsVector=as_vector)
            one, nothing = finisher.transform(annotations).select("finished").collect()
            assert_embedded(tiny_model, INSTRUCTION, ["one"], [list(vector) for vector in one.finished])
            assert nothing.finished == []
    finally:
        spark.conf.unset(name)


@pytest.mark.parametrize("case_sensitive", [False, True])
def test_names_that_differ_by_case(spark, stage, tiny_model, case_sensitive):
    """A stage finds columns and refuses new ones as Spark does."""
    name = "spark.sql.caseSensitive"
    spark.conf.set(name, str(case_sensitive).lower())
    try:
        schema = "Text string, Why string, I string, M map<string,string>"
        frame = spark.createDataFrame([("one", "Represent: ", "id", {"k": "v"})], schema)
        assembler = DocumentAssembler(inputCol="text", outputCol="TEXT")
        read = [
            stage.copy().setInstructionCol("why"),
            assembler.copy().setOutputCol("documents"),
            assembler.copy().setInputCol("Text").setOutputCol("documents").setIdCol("i"),
            assembler.copy().setInputCol("Text").setOutputCol("documents").setMetadataCol("m"),
        ]
        new = [
            stage.copy().setInputCols("Text").setOutputCol("TEXT"),
            assembler.copy().setInputCol("Text"),
            stage.copy().setInputCols("Text", "Why").setOutputCols("v", "V"),
        ]
        for each in read if case_sensitive else new:
            with pytest.raises(ValueError, match="there is no column" if case_sensitive else "Spark ignores case"):
                each.transform(frame)
        for each in new if case_sensitive else read:
            each.transform(frame).collect()
        if not case_sensitive:
            (row,) = read[0].transform(frame).collect()
            assert_embedded(tiny_model, "Represent: ", ["one"], [row.vector])
            twice = frame.select("*", F.lit("two").alias("text"))
            with pytest.raises(ValueError, match="'text' is ambiguous, since there are the columns 'Text', 'text'"):
                stage.transform(twice)
    finally:
        spark.conf.unset(name)


TEXT = st.none() | st.sampled_from(["", "a", "same", "the same"]) | st.text(st.characters(codec="utf-8"), max_size=20)


@pytest.mark.one_kind
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(TEXT, st.none() | st.lists(TEXT, max_size=4)), max_size=12),
    partitions=st.integers(1, 4),
    batch_size=st.integers(1, 40),
)
def test_any_frame(spark, stage, tiny_model, rows, partitions, batch_size):
    """Order, lengths and nulls are kept, and each text has its own vector."""
    schema = "id int, text string, texts array<string>"
    frame = spark.createDataFrame([(i, *row) for i, row in enumerate(rows)], schema).repartition(partitions, "id")
    embedder = stage.copy().setInputCols(["text", "texts"]).setOutputCols(["v", "vs"]).setBatchSize(batch_size)
    embedder.clear(embedder.outputCol)
    output = sorted(embedder.transform(frame).collect(), key=lambda row: row.id)
    assert [(row.text, row.texts) for row in output] == rows
    assert_embedded(tiny_model, INSTRUCTION, [text for text, _ in rows], [row.v for row in output])
    for (_, texts), row in zip(rows, output, strict=True):
        if texts is None:
            assert row.vs is None
        else:
            assert_embedded(tiny_model, INSTRUCTION, texts, row.vs)
    of_text = {}
    for row in output:
        assert of_text.setdefault(row.text, row.v) == pytest.approx(row.v, abs=TOLERANCE)
