"""DocumentAssembler: cleaning in Spark and in Python compared with Spark NLP; the schema, metadata and errors."""

import dataclasses
import re

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql.types import StructField

from spark_instructor import DocumentAssembler
from spark_instructor.stages.annotation import ANNOTATIONS
from spark_instructor.stages.assembler import CLEANUPS

# The mode, the text, and Spark NLP's result. r"\n" is a backslash and an n; "\n" is a newline.
CLEANED = [
    ("disabled", " a\t\n" + r"\n ", " a\t\n" + r"\n "),
    ("inplace", " a\tb\r\nc\x0b\x0c", " a b  c  "),
    ("inplace", r"a\nb\tc", r"a\nb\tc"),
    ("inplace", "a\x1cb\x85c\xa0d\u2028e\u3000f", "a\x1cb\x85c\xa0d\u2028e\u3000f"),  # Java's \s matches none of these
    ("inplace_full", "a\tb" + r"\r\nc\n\nd\te", "a b c  d e"),
    ("inplace_full", r"a\rb", r"a\rb"),
    ("shrink", " \t a  \r\n b\x0b\x0c\n", "a b"),
    ("shrink", "\x00\x1f a \x1f\x00b\x00 ", "a \x1f\x00b"),  # trim removes more characters than \s matches
    ("shrink", "\xa0a\u2028", "\xa0a\u2028"),
    ("shrink", " \t\n ", ""),
    ("shrink", r"a\n b", r"a\n b"),
    ("shrink_full", " a \t b" + r"\r\r\n\n\nc\t\td" + " ", "a b c d"),
    ("shrink_full", r"a\n" + " " + r"\tb", "a   b"),  # each run of blanks or of escapes becomes one space
    ("shrink_full", r"a\r\rb", r"a\r\rb"),
    ("each", "a \nb \tc\n\nd", "a b c d"),
    ("each", "a\nb\tc  d", "a\nb\tc  d"),
    ("each_full", "a \nb\t\tc " + r"\nd \r\ne \tf", "a b c d e f"),
    ("each_full", r"a\nb\tc", r"a\nb\tc"),
    ("delete_full", " a" + r"\nb\r\nc\td" + "\n", "abcd"),
    ("delete_full", "a\n b" + r"\r", "a\n b" + r"\r"),
]

SPARK_NLP = {
    "disabled": lambda text: text,
    "inplace": lambda text: java_replace_all(text, r"\s", " "),
    "inplace_full": lambda text: java_replace_all(text, r"\s|(?:\\r)?(?:\\n)|(?:\\t)", " "),
    "shrink": lambda text: java_replace_all(java_trim(text), r"\s+", " "),
    "shrink_full": lambda text: java_replace_all(java_trim(text), r"\s+|(?:\\r)*(?:\\n)+|(?:\\t)+", " "),
    "each": lambda text: java_replace_all(text, r"\s[\n\t]", " "),
    "each_full": lambda text: java_replace_all(text, r"\s(?:\n|\t|(?:\\r)?(?:\\n)|(?:\\t))", " "),
    "delete_full": lambda text: java_replace_all(java_trim(text), r"(?:\\r)?(?:\\n)|(?:\\t)", ""),
}

NASTY = st.lists(
    st.sampled_from([" ", "\t", "\n", "\r", "\x0b", "\x0c", "\x00", "\x1c", "\x1f", "\x7f", "\x85", "\xa0"])
    | st.sampled_from(["\u2028", "\u3000", "\ufeff", "e\u0301", "😀", "👩‍👩‍👧", "\\", "n", "r", "t", " " * 9])
    | st.sampled_from([r"\n", r"\t", r"\r", r"\r\n", r"\r" * 3, r"\n" * 3])
    | st.characters(exclude_categories=["Cs"]),
    max_size=12,
).map("".join)


def java_trim(text):
    return text.strip("".join(map(chr, range(33))))


def java_replace_all(text, pattern, replacement):
    return re.sub(pattern, replacement, text, flags=re.ASCII)


def utf16_length(text):
    return len(text.encode("utf-16-le")) // 2


def assemble_in_spark(spark, texts):
    """Assemble the texts in every mode with one Spark job, and return each mode's documents as tuples."""
    documents = spark.createDataFrame([(text,) for text in texts], "text string")
    for mode in CLEANUPS:
        documents = DocumentAssembler(inputCol="text", outputCol=mode, cleanupMode=mode).transform(documents)
    rows = documents.collect()
    return {mode: [tuple(annotation) for row in rows for annotation in row[mode]] for mode in CLEANUPS}


def assemble_in_python(texts):
    """Assemble the texts in every mode as LightPipeline does, and return each mode's documents as tuples."""
    return {
        mode: [
            dataclasses.astuple(annotation)
            for (annotation,) in DocumentAssembler(inputCol="text", cleanupMode=mode).transform_rows({"text": texts})[
                "document"
            ]
        ]
        for mode in CLEANUPS
    }


def examples(strategy, count):
    """Draw many examples at once, so that one Spark job can check a property for all of them."""
    values = []

    @settings(max_examples=count, phases=[Phase.generate], database=None)
    @given(strategy)
    def take(example):
        values.append(example)

    take()
    return values


@pytest.fixture(scope="module")
def two_rows(spark):
    return spark.sql(
        "SELECT 1 AS id, 'one' AS text, array('a', null, '') AS texts, "
        "map('lang', 'en', 'sentence', 'x', 'id', 'y') AS meta "
        "UNION ALL SELECT null, null, null, null"
    )


def documents(dataset, **params):
    """Assemble a dataset and return the documents of each row as tuples."""
    assembled = DocumentAssembler(**{"inputCol": "text", **params}).transform(dataset).select("document")
    return [[tuple(annotation) for annotation in row.document] for row in assembled.collect()]


def document(text, **metadata):
    return ("document", 0, len(text) - 1, text, metadata, [])


@pytest.mark.parametrize(("mode", "text", "expected"), CLEANED)
def test_modes_in_python(mode, text, expected):
    ((annotation,),) = DocumentAssembler(inputCol="text", cleanupMode=mode).transform_rows({"text": [text]})["document"]
    assert annotation.result == expected == SPARK_NLP[mode](text)


def test_modes_in_spark(spark):
    documents_of_mode = assemble_in_spark(spark, [text for _, text, _ in CLEANED])
    for i, (mode, text, expected) in enumerate(CLEANED):
        assert documents_of_mode[mode][i][3] == expected, (mode, text)


@pytest.mark.one_kind
def test_spark_python_and_spark_nlp_agree(spark):
    texts = examples(NASTY, 1500)
    in_spark, in_python = assemble_in_spark(spark, texts), assemble_in_python(texts)
    for mode in CLEANUPS:
        for i, text in enumerate(texts):
            result = SPARK_NLP[mode](text)
            expected = ("document", 0, utf16_length(result) - 1, result, {"sentence": "0"}, [])
            assert in_spark[mode][i] == expected, (mode, text)
            assert in_python[mode][i] == expected, (mode, text)


@pytest.mark.one_kind
def test_long_runs_take_linear_time(spark):
    """Texts of a million characters are cleaned in linear time; quadratic time would take hours."""
    size = 1 << 20
    texts = [
        " " * size,
        f"a{' ' * size}b",
        "\t\n" * (size // 2),
        r"\r" * (size // 2),
        r"\n" * (size // 2),
        "\x00" * size,
    ]
    in_spark, in_python = assemble_in_spark(spark, texts), assemble_in_python(texts)
    assert in_spark == in_python
    assert [annotation[3] for annotation in in_spark["shrink_full"]] == ["", "a b", "", r"\r" * (size // 2), " ", ""]


def test_null_and_empty_text(spark):
    texts = spark.createDataFrame([(None,), ("",), (" \n",)], "text string")
    assert documents(texts, cleanupMode="shrink") == [[document("", sentence="0")]] * 3


def test_array_of_texts(two_rows):
    numbered = [document("a", sentence="0"), document("", sentence="1"), document("", sentence="2")]
    assert documents(two_rows, inputCol="texts") == [numbered, []]


def test_array_is_cleaned_by_element(spark):
    texts = spark.sql(r"SELECT array(' a ', '\t', 'b  b') AS texts")
    (annotations,) = documents(texts, inputCol="texts", cleanupMode="shrink")
    assert [(annotation[2], annotation[3]) for annotation in annotations] == [(0, "a"), (-1, ""), (2, "b b")]


def test_end_counts_utf16_units(spark):
    texts = spark.createDataFrame([("a😀é",)], "text string")
    assert documents(texts) == [[("document", 0, 3, "a😀é", {"sentence": "0"}, [])]]


def test_id_and_metadata(two_rows):
    row, null_row = documents(two_rows, idCol="id")
    assert (row, null_row) == ([document("one", sentence="0", id="1")], [document("", sentence="0", id=None)])
    row, null_row = documents(two_rows, metadataCol="meta")
    assert (row, null_row) == ([document("one", sentence="0", lang="en", id="y")], [document("", sentence="0")])
    row, null_row = documents(two_rows, inputCol="texts", idCol="id", metadataCol="meta")
    assert row[2] == document("", sentence="2", lang="en", id="1")
    assert null_row == []


@pytest.mark.parametrize("params", [{}, {"inputCol": "texts"}, {"idCol": "id", "metadataCol": "meta"}])
def test_schema(two_rows, params):
    assembled = DocumentAssembler(**{"inputCol": "text", "outputCol": "documents", **params}).transform(two_rows)
    added = StructField("documents", ANNOTATIONS, metadata={"annotatorType": "document"})
    assert assembled.schema.fields == [*two_rows.schema.fields, added]


def test_names_with_dots_and_spaces(two_rows):
    renamed = two_rows.toDF("row id", "my.text", "texts", "meta`data")
    stage = DocumentAssembler(inputCol="my.text", outputCol="the doc.s", idCol="row id", metadataCol="meta`data")
    assembled = stage.transform(renamed)
    assert assembled.schema["the doc.s"].metadata == {"annotatorType": "document"}
    assert assembled.select("`the doc.s`.metadata").collect()[0][0] == [{"lang": "en", "sentence": "0", "id": "1"}]


def test_plan_has_no_udf(two_rows, capsys):
    stage = DocumentAssembler(inputCol="texts", idCol="id", metadataCol="meta", cleanupMode="shrink_full")
    stage.transform(two_rows).explain(True)
    plan = capsys.readouterr().out
    assert "regexp_replace" in plan
    assert not re.search("python|pandas|arrow|udf", plan, re.IGNORECASE)


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"DocumentAssembler needs inputCol: call setInputCol\("),
        (
            {"inputCol": "body"},
            "DocumentAssembler: there is no column 'body'; the columns are 'id', 'text', 'texts', 'meta'",
        ),
        ({"inputCol": "id"}, "DocumentAssembler: column 'id' is int, expected string or array<string>"),
        ({"inputCol": "text", "idCol": "key"}, "DocumentAssembler: there is no column 'key'"),
        ({"inputCol": "text", "metadataCol": "key"}, "DocumentAssembler: there is no column 'key'"),
        ({"inputCol": "text", "metadataCol": "text"}, "'text' is string, expected map<string,string>"),
        ({"inputCol": "text", "outputCol": "id"}, "DocumentAssembler: the output column 'id' exists already"),
    ],
)
def test_bad_input(two_rows, params, message):
    with pytest.raises(ValueError, match=message):
        DocumentAssembler(**params).transform(two_rows)


def test_save_and_load(two_rows, tmp_path):
    stage = DocumentAssembler(inputCol="text", outputCol="documents", idCol="id", cleanupMode="each")
    path = str(tmp_path / "assembler")
    DocumentAssembler(inputCol="other").save(path)
    stage.write().overwrite().save(path)
    loaded = DocumentAssembler.load(path)
    assert (loaded.uid, loaded.explainParams()) == (stage.uid, stage.explainParams())
    assert loaded.transform(two_rows).collect() == stage.transform(two_rows).collect()
    with pytest.raises(Exception, match=r"(?i)already.exists"):
        stage.save(path)
