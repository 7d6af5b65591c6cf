"""LightPipeline without a Spark session: what it returns, which columns it drops, and what it refuses."""

import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel, Transformer
from pyspark.ml.feature import SQLTransformer, VectorAssembler
from pyspark.ml.linalg import DenseVector
from pyspark.ml.param import Param, Params

from spark_instructor import (
    Annotation,
    DocumentAssembler,
    EmbeddingsFinisher,
    InstructorEmbeddings,
    LightPipeline,
)
from spark_instructor.encoder import InstructorModel

INSTRUCTION = "Represent the title: "
TEXTS = ["Paris is in France.", "a", "What eats the fox, and when? " * 20, "  ", "Zażółć 😀"]


def assembler(**params):
    return DocumentAssembler(**{"inputCol": "text", "outputCol": "documents", **params})


def embedder(tiny, **params):
    settings = {"inputCols": "documents", "outputCol": "instructor", "instruction": INSTRUCTION, **params}
    return InstructorEmbeddings(model=str(tiny), **settings)


def finisher(**params):
    return EmbeddingsFinisher(**{"inputCols": "instructor", "outputCols": "vectors", **params})


def light(*stages, **options):
    return LightPipeline(PipelineModel(list(stages)), **options)


@pytest.fixture(scope="module")
def vectors(tiny, own_cache):
    return InstructorModel.from_pretrained(tiny).encode(INSTRUCTION, TEXTS)


def test_full_annotate(tiny, vectors):
    rows = light(assembler(), embedder(tiny)).fullAnnotate(TEXTS)
    assert [list(row) for row in rows] == [["documents", "instructor"]] * len(TEXTS)
    for row, text, vector in zip(rows, TEXTS, vectors, strict=True):
        end = len(text.encode("utf-16-le")) // 2 - 1
        assert row["documents"] == [Annotation("document", 0, end, text, {"sentence": "0"}, [])]
        (annotation,) = row["instructor"]
        assert (annotation.annotatorType, annotation.result) == ("sentence_embeddings", text)
        assert (annotation.begin, annotation.end) == (0, end)
        assert annotation.metadata.keys() == {"sentence", "tokens"}
        np.testing.assert_allclose(annotation.embeddings, vector, atol=1e-6)


def test_full_annotate_of_one_text_is_a_list_of_one(tiny):
    pipeline = light(assembler(), embedder(tiny))
    assert [row["documents"][0].result for row in pipeline.fullAnnotate("one")] == ["one"]


def test_annotate_gives_results(tiny):
    pipeline = light(assembler(), embedder(tiny))
    assert pipeline.annotate("one") == {"documents": ["one"], "instructor": ["one"]}
    assert pipeline.annotate(["one"]) == [{"documents": ["one"], "instructor": ["one"]}]


def test_parse_embeddings_gives_floats(tiny, vectors):
    rows = light(assembler(), embedder(tiny), parse_embeddings=True).annotate(TEXTS)
    assert [row["documents"] for row in rows] == [[text] for text in TEXTS]
    assert all(type(value) is float for value in rows[0]["instructor"][0])
    np.testing.assert_allclose([row["instructor"][0] for row in rows], vectors, atol=1e-6)


def test_all_texts_are_encoded_in_one_call(tiny, monkeypatch):
    calls = []
    encode_counted = InstructorModel.encode_counted

    def record_call(self, instruction, texts, **options):
        calls.append(list(texts))
        return encode_counted(self, instruction, texts, **options)

    monkeypatch.setattr(InstructorModel, "encode_counted", record_call)
    light(assembler(), embedder(tiny)).annotate([*TEXTS, ""])
    assert calls == [TEXTS]


def test_string_column_without_assembler(tiny, vectors):
    rows = light(embedder(tiny, inputCols="title", outputCol="vector")).annotate([*TEXTS, ""])
    assert [list(row) for row in rows] == [["vector"]] * 6
    np.testing.assert_allclose([row["vector"] for row in rows[:5]], vectors, atol=1e-6)
    assert np.isfinite(rows[5]["vector"]).all()


@pytest.mark.parametrize(
    ("output_type", "class_", "size"),
    [("float", list, 64), ("vector", DenseVector, 64), ("half", bytes, 128), ("int8", list, 64), ("binary", bytes, 8)],
)
def test_output_types(tiny, output_type, class_, size):
    stage = embedder(tiny, inputCols="title", outputCol="vector", outputType=output_type)
    cell = light(stage).annotate("one")["vector"]
    assert (type(cell), len(cell)) == (class_, size)


def test_text_column_may_have_any_name(tiny):
    pipeline = light(assembler(inputCol="my text.", outputCol="a.b"), embedder(tiny, inputCols="a.b"))
    assert pipeline.annotate("one") == {"a.b": ["one"], "instructor": ["one"]}


def test_cleanup_mode(tiny):
    assert light(assembler(cleanupMode="shrink")).annotate(" a \n b ") == {"documents": ["a b"]}


@pytest.mark.parametrize("texts", [[], ()])
def test_no_texts(tiny, texts):
    pipeline = light(assembler(), embedder(tiny), finisher())
    assert pipeline.annotate(texts) == []
    assert pipeline.fullAnnotate(texts) == []


def test_empty_text(tiny):
    row = light(assembler(), embedder(tiny), finisher()).fullAnnotate("")[0]
    assert row["documents"] == [Annotation("document", 0, -1, "", {"sentence": "0"}, [])]
    assert (row["instructor"], row["vectors"]) == ([], [])


@pytest.mark.parametrize("as_vector", [False, True])
def test_finisher(tiny, vectors, as_vector):
    rows = light(assembler(), embedder(tiny), finisher(outputAsVector=as_vector)).annotate(TEXTS)
    assert list(rows[0]) == ["documents", "instructor", "vectors"]
    assert all(isinstance(row["vectors"][0], DenseVector if as_vector else list) for row in rows)
    np.testing.assert_allclose([list(row["vectors"][0]) for row in rows], vectors, atol=1e-6)


@pytest.mark.parametrize("texts", [["one", ""], ["", ""], ["one"]])
def test_cleaning_drops_the_same_columns_whatever_the_texts(tiny, texts):
    pipeline = light(assembler(), embedder(tiny), finisher(cleanAnnotations=True))
    for rows in (pipeline.annotate(texts), pipeline.fullAnnotate(texts)):
        assert [list(row) for row in rows] == [["vectors"]] * len(texts)
        assert [len(row["vectors"]) for row in rows] == [int(bool(text)) for text in texts]


def test_cleaning_keeps_what_is_made_later_and_what_holds_no_annotations(tiny):
    pipeline = light(
        assembler(),
        embedder(tiny),
        embedder(tiny, inputCols="text", outputCol="plain"),
        finisher(cleanAnnotations=True),
        assembler(),
    )
    assert list(pipeline.annotate("")) == ["plain", "vectors", "documents"]


def test_nested_pipelines(tiny):
    inner = PipelineModel([PipelineModel([assembler()]), embedder(tiny)])
    assert list(light(inner, finisher()).annotate("one")) == ["documents", "instructor", "vectors"]


@pytest.mark.parametrize(("long_text", "truncated"), [("truncate", "true"), ("average", None)])
def test_long_text(tiny, long_text, truncated):
    pipeline = light(assembler(), embedder(tiny, maxSentenceLength=32, longText=long_text))
    short, long = pipeline.fullAnnotate(["short", "long " * 100])
    assert "truncated" not in short["instructor"][0].metadata
    assert long["instructor"][0].metadata.get("truncated") == truncated
    assert (int(long["instructor"][0].metadata["tokens"]) > 32) == (long_text == "average")


@pytest.mark.parametrize("target", [None, 5, b"one", ["one", None], [["one"]], {"text": "one"}])
def test_wrong_targets(target):
    with pytest.raises(TypeError, match="a str or a list of str"):
        light(assembler()).annotate(target)


@pytest.mark.parametrize("stage", [SQLTransformer, VectorAssembler])
def test_stages_of_spark_ml_are_skipped(tiny, stage):
    foreign = object.__new__(stage)  # the constructor needs a Spark session
    pipeline = light(assembler(), embedder(tiny), finisher(), PipelineModel([foreign]))
    assert list(pipeline.annotate("one")) == ["documents", "instructor", "vectors"]
    with pytest.raises(ValueError, match=f"no column 'features'; .* and it does not run {stage.__name__}"):
        light(assembler(), foreign, finisher(inputCols="features"))


def spark_nlps(name, **params):
    """Return a stage as Spark NLP's library in Python has it: a class of its module with Params of the same names."""
    cls = type(name, (Transformer,), {"__module__": f"sparknlp.base.{name.lower()}", "_transform": None})
    for param in params:
        setattr(cls, param, Param(Params._dummy(), param, param))
    return cls()._set(**params)


def test_stages_of_spark_nlp_that_are_the_same(tiny, vectors):
    theirs = spark_nlps("DocumentAssembler", inputCol="text", outputCol="documents", cleanupMode="shrink")
    finish = spark_nlps("EmbeddingsFinisher", inputCols=["instructor"], outputCols=[], cleanAnnotations=True, extra=1)
    rows = light(theirs, embedder(tiny), finish).annotate([f" {text.strip()}\n" for text in TEXTS])
    assert [list(row) for row in rows] == [["finished_instructor"]] * len(TEXTS)
    assert rows[3]["finished_instructor"] == []
    np.testing.assert_allclose(rows[4]["finished_instructor"], vectors[4:], atol=1e-6)


def test_stages_of_spark_nlp_that_cannot_run(tiny):
    pipeline = light(assembler(), spark_nlps("NerDLModel"), embedder(tiny))
    for call in (pipeline.annotate, pipeline.fullAnnotate):
        with pytest.raises(TypeError, match=r"cannot run NerDLModel, a stage of Spark NLP .* or setIgnoreUnsupported"):
            call("one")
    assert pipeline.getIgnoreUnsupported() is False
    assert pipeline.setIgnoreUnsupported(True) is pipeline and pipeline.getIgnoreUnsupported() is True
    assert list(pipeline.annotate("one")) == ["documents", "instructor"]
    with pytest.raises(ValueError, match=r"no column 'sentences'; .* and it does not run SentenceDetector"):
        light(assembler(), spark_nlps("SentenceDetector"), embedder(tiny, inputCols="sentences"))


def test_output_cols(tiny):
    pipeline = light(assembler(), embedder(tiny), finisher(), output_cols=["vectors", "documents"])
    assert list(pipeline.annotate("one")) == list(pipeline.fullAnnotate("one")[0]) == ["vectors", "documents"]
    with pytest.raises(ValueError, match="no column 'vector'; the columns are 'documents', 'instructor'"):
        light(assembler(), embedder(tiny), output_cols=["vector"])


def test_ids_and_metadata(tiny):
    pipeline = light(assembler(), embedder(tiny), finisher())
    rows = pipeline.fullAnnotate([7, "b"], ["one", "two"], metadata={"lang": "en", "sentence": "9"})
    assert [row["documents"][0].metadata for row in rows] == [
        {"lang": "en", "sentence": "0", "id": "7"},
        {"lang": "en", "sentence": "0", "id": "b"},
    ]
    assert rows[1]["instructor"][0].metadata.keys() == {"lang", "sentence", "id", "tokens"}
    assert [row["documents"] for row in pipeline.annotate([7, 8], ["one", "two"])] == [["one"], ["two"]]
    assert pipeline.fullAnnotate("one", metadata={"k": "v"})[0]["documents"][0].metadata == {"k": "v", "sentence": "0"}
    with pytest.raises(ValueError, match="there are 1 ids for 2 texts"):
        pipeline.annotate([7], ["one", "two"])


def test_names_that_differ_by_case(tiny):
    """As `transform` does by default."""
    pipeline = light(assembler(), embedder(tiny, inputCols="Documents"), finisher(inputCols="INSTRUCTOR"))
    assert list(pipeline.annotate("one")) == ["documents", "instructor", "vectors"]
    with pytest.raises(ValueError, match="the output column 'DOCUMENTS' exists already"):
        light(assembler(), assembler(outputCol="DOCUMENTS"))


@pytest.mark.parametrize("not_fitted", [Pipeline(stages=[assembler()]), assembler()])
def test_not_a_pipeline_model(not_fitted):
    with pytest.raises(
        TypeError, match=f"takes the PipelineModel that Pipeline.fit returns, not a {type(not_fitted).__name__}"
    ):
        LightPipeline(not_fitted)


def test_stages_that_do_not_fit_together(tiny):
    two_columns = embedder(tiny, inputCols=["text", "title"]).setOutputCols("a", "b")
    finish_dropped = finisher(outputCols="again")
    for stages, message in [
        ([], "needs a pipeline with stages"),
        ([assembler(), embedder(tiny, inputCols="document")], "no column 'document'; .* texts only to 'text'"),
        ([two_columns], "no column 'title'; .* texts only to 'text'"),
        ([assembler(), embedder(tiny), finisher(cleanAnnotations=True), finish_dropped], "no column 'instructor'"),
        ([assembler(), finisher(inputCols="documents")], "'documents' holds document, expected sentence_embeddings"),
        ([embedder(tiny, inputCols="text"), finisher()], "'instructor' holds vectors, expected sentence_embeddings"),
        ([assembler(), assembler(inputCol="documents", outputCol="d")], "'documents' holds document, expected text"),
        ([assembler(), assembler()], "the output column 'documents' exists already"),
        ([assembler(), embedder(tiny), finisher(outputCols=["a", "b"])], "1 inputCols .* but 2 outputCols"),
        ([DocumentAssembler()], "needs inputCol"),
    ]:
        with pytest.raises(ValueError, match=message):
            light(*stages)


def test_instruction_column_has_no_place_here(tiny):
    with pytest.raises(ValueError, match="instructionCol"):
        light(assembler(), embedder(tiny, instructionCol="instruction")).annotate("one")
