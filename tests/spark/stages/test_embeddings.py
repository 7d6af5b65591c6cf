"""InstructorEmbeddings.transform: the output schema, every kind of input column, and the settings."""

import json
from importlib import import_module

import numpy as np
import pytest
from checkpoints import write_checkpoint, write_json
from pyspark.ml import Pipeline
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, StringType, StructField, StructType
from vectors import TOLERANCE, assert_close

from spark_instructor import DocumentAssembler, InstructorEmbeddings, instructor_embed
from spark_instructor.encoder import InstructorModel
from spark_instructor.models.prepared import read_prepared
from spark_instructor.stages import model_stage
from spark_instructor.stages.annotation import ANNOTATIONS

LONG = "one text of many words, " * 120

# Spark NLP's Annotation.dataType, as its JVM code serializes it.
ANNOTATION_JSON = json.loads("""
    {"type": "array", "containsNull": true, "elementType": {"type": "struct", "fields": [
        {"name": "annotatorType", "type": "string", "nullable": true, "metadata": {}},
        {"name": "begin", "type": "integer", "nullable": false, "metadata": {}},
        {"name": "end", "type": "integer", "nullable": false, "metadata": {}},
        {"name": "result", "type": "string", "nullable": true, "metadata": {}},
        {"name": "metadata", "nullable": true, "metadata": {}, "type":
            {"type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true}},
        {"name": "embeddings", "nullable": true, "metadata": {}, "type":
            {"type": "array", "elementType": "float", "containsNull": false}}
    ]}}
""")


@pytest.fixture(scope="module")
def vector(tiny_model):
    """Return a function that embeds one text by itself."""
    return lambda text, instruction="": tiny_model.encode(instruction, [text])[0]


def embedder(tiny, inputs, output="vector"):
    return InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols(inputs).setOutputCol(output)


def annotation(result, begin=0, end=None, metadata=None):
    end = len(result or "") - 1 if end is None else end
    return ("document", begin, end, result, {"sentence": "0"} if metadata is None else metadata, [])


def test_spark_nlp_code(spark):
    """Code written for Spark NLP works with this package's imports and the packaged model."""
    documentAssembler = DocumentAssembler().setInputCol("text").setOutputCol("documents")
    embeddings = (
        InstructorEmbeddings.pretrained("instructor_tiny", "en")
        .setInstruction("Instruction here: ")
        .setInputCols(["documents"])
        .setOutputCol("instructor")
    )
    pipeline = Pipeline().setStages([documentAssembler, embeddings])
    data = spark.createDataFrame([["Some text."], [""], [None]]).toDF("text")
    result = pipeline.fit(data).transform(data)

    assert result.columns == ["text", "documents", "instructor"]
    of_documents, of_output = result.schema.jsonValue()["fields"][1:]
    assert of_documents == {
        "name": "documents",
        "type": ANNOTATION_JSON,
        "nullable": True,
        "metadata": {"annotatorType": "document"},
    }
    assert of_output == {
        "name": "instructor",
        "type": ANNOTATION_JSON,
        "nullable": True,
        "metadata": {
            "annotatorType": "sentence_embeddings",
            "dimension": 384,
            "ref": embeddings.getStorageRef(),
            "spark_instructor": {
                "model": "instructor_tiny",
                "precision": "float32",
                "instruction": "Instruction here: ",
                "hash": embeddings.prepare_model().hash,
            },
        },
    }

    rows = {row.text: row.instructor for row in result.collect()}
    assert rows[""] == rows[None] == []
    (embedding,) = rows["Some text."]
    packaged = InstructorModel.from_pretrained("instructor_tiny")
    assert_close(embedding.embeddings, packaged.encode("Instruction here: ", ["Some text."])[0])
    assert (embedding.annotatorType, embedding.result) == ("sentence_embeddings", "Some text.")
    assert (embedding.begin, embedding.end) == (0, 9)
    assert embedding.metadata.keys() == {"sentence", "tokens"}


VECTOR = ArrayType(FloatType(), containsNull=False)


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize(
    ("input_type", "output_type"),
    [
        (StringType(), VECTOR),
        (ArrayType(StringType(), True), ArrayType(VECTOR, True)),
        (ArrayType(StringType(), False), ArrayType(VECTOR, True)),
        (ANNOTATIONS, ANNOTATIONS),
    ],
    ids=["string", "array", "array without nulls", "annotations"],
)
def test_output_type(spark, tiny, input_type, output_type, nullable):
    empty = spark.createDataFrame([], StructType([StructField("in", input_type, nullable)]))
    stage = embedder(tiny, "in").setStorageRef("mine")
    field = stage.transform(empty).schema["vector"]
    assert field.dataType == output_type
    assert field.nullable or not nullable
    kind = {"annotatorType": "sentence_embeddings"} if output_type == ANNOTATIONS else {}
    provenance = {"model": str(tiny), "precision": "float32", "hash": stage.prepare_model().hash}
    assert field.metadata == {**kind, "dimension": 64, "ref": "mine", "spark_instructor": provenance}


MIXED = [
    # The columns are id, text, texts, annotations and instruction.
    (0, "one", ["a", "b c"], [annotation("first"), annotation("second")], "Represent: "),
    (1, None, None, None, "Represent: "),
    (2, "", [], [], None),
    (3, "four", ["", None, "d"], [annotation(""), annotation(None), None, annotation("third")], ""),
    (4, "five", [None], [annotation("fourth")], "Another: "),
    (5, LONG, [LONG, "e"], [annotation(""), annotation(LONG)], None),
    (6, "six", None, [], "Represent: "),
]
MIXED_SCHEMA = StructType(
    [
        StructField("id", StringType()),
        StructField("text", StringType()),
        StructField("texts", ArrayType(StringType())),
        StructField("annotations", ANNOTATIONS),
        StructField("instruction", StringType()),
    ]
)


def check_mixed(rows, vector):
    """Assert that each cell has the vectors of its own texts under the instruction of its row."""
    assert sorted(row.id for row in rows) == [str(row[0]) for row in MIXED]
    for row in rows:
        _, text, texts, annotations, instruction = MIXED[int(row.id)]

        def check(actual, of_text, instruction=instruction):
            if of_text is None:
                assert actual is None
            else:
                assert_close(actual, vector(of_text, instruction or ""))

        check(row.v_text, text)
        assert (row.v_texts is None) == (texts is None)
        for actual, element in zip(row.v_texts or [], texts or [], strict=True):
            check(actual, element)
        assert (row.v_annotations is None) == (annotations is None)
        results = [source[3] for source in annotations or [] if source is not None and source[3]]
        assert [embedding.result for embedding in row.v_annotations or []] == results
        for embedding in row.v_annotations or []:
            check(embedding.embeddings, embedding.result)
            assert ("truncated" in embedding.metadata) == (embedding.result == LONG)


@pytest.mark.parametrize("partitions", [1, 16])
def test_rows_never_shift(spark, tiny, vector, partitions):
    """All kinds of columns are embedded at once, with nulls and empty values, even if partitions outnumber rows."""
    rows = [(str(id_), *cells) for id_, *cells in MIXED]
    mixed = spark.createDataFrame(rows, MIXED_SCHEMA).repartition(partitions)
    stage = (
        InstructorEmbeddings.loadSavedModel(str(tiny))
        .setInputCols("text", "texts", "annotations")
        .setOutputCols("v_text", "v_texts", "v_annotations")
        .setInstruction("the column wins over this: ")
        .setInstructionCol("instruction")
    )
    check_mixed(stage.transform(mixed).collect(), vector)


@pytest.mark.parametrize("rows", [[], [(None, None, None)] * 3], ids=["no rows", "only nulls"])
def test_nothing_to_embed(spark, tiny, rows):
    types = {"text": StringType(), "texts": ArrayType(StringType()), "annotations": ANNOTATIONS}
    schema = StructType([StructField(name, type_) for name, type_ in types.items()])
    stage = InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols(list(types)).setOutputCols("a", "b", "c")
    output = stage.transform(spark.createDataFrame(rows, schema)).select("a", "b", "c").collect()
    assert [tuple(row) for row in output] == rows


def test_annotations_keep_what_they_came_with(spark, tiny, tiny_model):
    full_row = [annotation("a b", 3, 5, {"tokens": "99", "truncated": "true", "mine": None}), annotation("c", 7, 7, {})]
    bare_row = [("document", 0, 0, "d", None, None)]
    documents = spark.createDataFrame([(full_row,), (bare_row,)], StructType([StructField("documents", ANNOTATIONS)]))
    exploded = embedder(tiny, "documents").transform(documents).select(F.explode("vector").alias("embedding"))
    embeddings = [row.embedding for row in exploded.collect()]
    tokens = {text: str(tiny_model.encode_counted("", [text]).tokens[0]) for text in ("a b", "c", "d")}
    assert {(each.result, each.begin, each.end) for each in embeddings} == {("a b", 3, 5), ("c", 7, 7), ("d", 0, 0)}
    assert {each.result: each.metadata for each in embeddings} == {
        "a b": {"mine": None, "tokens": tokens["a b"]},
        "c": {"tokens": tokens["c"]},
        "d": {"tokens": tokens["d"]},
    }


@pytest.mark.one_kind
def test_nullable_annotations_without_metadata(spark, tiny, vector, tmp_path):
    """Files of other writers may have only nullable fields and no column metadata; here begin and end are null."""
    type_ = (
        "array<struct<annotatorType:string,begin:int,end:int,result:string,metadata:map<string,string>,"
        "embeddings:array<float>>>"
    )
    documents = spark.createDataFrame([([("document", None, None, "some text", None, None)],)], f"documents {type_}")
    stored = f"file://{tmp_path}/stored"
    documents.write.parquet(stored)
    embedded = embedder(tiny, "documents").transform(spark.read.parquet(stored))
    assert embedded.schema["vector"].dataType == ANNOTATIONS
    ((embedding,),) = [row.vector for row in embedded.collect()]
    assert (embedding.begin, embedding.end) == (0, 8)
    assert_close(embedding.embeddings, vector("some text"))


@pytest.mark.one_kind
@pytest.mark.parametrize("name", ["my.text", "my text", "my`text", "text[0]", "té"])
def test_column_names(spark, tiny, vector, name):
    output, instruction = f"{name}.out", f"{name}.instruction"
    texts = spark.createDataFrame(
        [("a text", "Represent: ")],
        StructType([StructField(name, StringType()), StructField(instruction, StringType())]),
    )
    embedded = embedder(tiny, name, output).setInstructionCol(instruction).transform(texts)
    assert embedded.columns == [name, instruction, output]
    (row,) = embedded.collect()
    assert_close(row[output], vector("a text", "Represent: "))


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("params", "precision", "settings"),
    [
        ({"maxSentenceLength": 16}, "float32", {"max_length": 16}),
        ({"longText": "average"}, "float32", {"long_text": "average"}),
        ({"longText": "average", "maxSentenceLength": 32}, "float32", {"long_text": "average", "max_length": 32}),
        ({"precision": "bfloat16", "batchSize": 1}, "bfloat16", {"batch_size": 1}),
    ],
)
def test_settings(spark, tiny, params, precision, settings):
    texts = ["a text", LONG, "another text"]
    expected = InstructorModel.from_pretrained(tiny, precision=precision).encode("Represent: ", texts, **settings)
    default = InstructorModel.from_pretrained(tiny).encode("Represent: ", texts)
    assert not np.allclose(expected, default, atol=1e-4), "the setting makes no difference to these texts"

    stage = InstructorEmbeddings(
        model=str(tiny), inputCols=["text"], outputCol="vector", instruction="Represent: ", **params
    )
    rows = stage.transform(spark.createDataFrame([(text,) for text in texts], "text string")).collect()
    vectors = {row.text: row.vector for row in rows}
    # Products in bfloat16 depend slightly on the other texts in the batch.
    tolerance = TOLERANCE if precision == "float32" else 2e-3
    np.testing.assert_allclose([vectors[text] for text in texts], expected, atol=tolerance, rtol=0)


@pytest.mark.one_kind
def test_default_prompt_of_the_checkpoint(spark, tmp_path):
    """It is the instruction if none is set, in every way to embed; an empty instruction turns it off."""
    checkpoint = write_checkpoint(tmp_path / "model")
    prompts = {"prompts": {"document": "Represent the document: "}, "default_prompt_name": "document"}
    write_json(checkpoint / "config_sentence_transformers.json", prompts)
    model = InstructorModel.from_pretrained(checkpoint)
    with_prompt, without = (model.encode(text, ["a text"])[0] for text in ("Represent the document: ", ""))
    assert np.abs(with_prompt - without).max() > 0.01
    df = spark.createDataFrame([("a text",)], "text string")

    stage = embedder(checkpoint, "text")
    stage.write().overwrite().save(str(tmp_path / "stage"))
    for unset in (stage, InstructorEmbeddings.load(str(tmp_path / "stage"))):
        embedded = unset.transform(df)
        assert_close(embedded.first().vector, with_prompt)
        assert "Represent the document: " in json.dumps(embedded.schema["vector"].metadata)
    function = instructor_embed("text", model=str(checkpoint)).alias("vector")
    assert_close(df.select(function).first().vector, with_prompt)
    assert_close(embedder(checkpoint, "text").setInstruction("").transform(df).first().vector, without)


def test_param_map(spark, tiny, vector):
    texts = spark.createDataFrame([("a text",)], "text string")
    stage = embedder(tiny, "text", "a")
    transformed = stage.transform(texts, {stage.instruction: "Represent: ", stage.outputCol: "b"})
    assert transformed.columns == ["text", "b"]
    (row,) = transformed.collect()
    assert_close(row.b, vector("a text", "Represent: "))


@pytest.fixture
def preparation(monkeypatch, tmp_path):
    """Return the module that prepares models, with an empty cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return import_module("spark_instructor.encoder.preparation")


@pytest.mark.one_kind
def test_transform_reads_the_manifest_once(spark, tiny, preparation, monkeypatch):
    reads = []
    for module in (preparation, model_stage):
        monkeypatch.setattr(module, "read_prepared", lambda folder: reads.append(folder) or read_prepared(folder))
    texts = spark.createDataFrame([("a text",)], "text string")
    stage = embedder(tiny, "text").setInstruction("Represent: ")
    stage.transform(texts)
    assert len(reads) == 1
    stage.transform(texts)
    assert len(reads) == 1


@pytest.mark.one_kind
def test_copy_keeps_the_model_and_prepares_once(spark, tiny, preparation, monkeypatch):
    calls, prepare = [], preparation._prepare
    monkeypatch.setattr(preparation, "_prepare", lambda *args: calls.append(args) or prepare(*args))
    stage = embedder(tiny, "text")
    assert not calls, "setters may follow"
    assert (stage.getDimension(), stage.getMaxSentenceLength()) == (64, 512)
    copy = stage.copy({stage.instruction: "Represent: "})
    assert (copy.getModel(), copy.getInstruction(), stage.getInstruction()) == (str(tiny), "Represent: ", "")
    assert copy.transform(spark.createDataFrame([], "text string")).columns == ["text", "vector"]
    assert len(calls) == 1
    assert copy.setPrecision("bfloat16").getDimension() == 64
    assert len(calls) == 2
