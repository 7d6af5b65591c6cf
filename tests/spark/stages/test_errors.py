"""InstructorEmbeddings reports bad input with a clear error on the driver, before any job starts."""

import re
import shutil
import warnings
from types import SimpleNamespace

import pytest
from checkpoints import copy_tiny
from pyspark.sql.types import StructField, StructType

from spark_instructor import InstructorEmbeddings
from spark_instructor.models.prepared import WEIGHTS
from spark_instructor.stages.annotation import ANNOTATIONS
from spark_instructor.udf import check_worker_python

pytestmark = pytest.mark.one_kind


@pytest.fixture(scope="module")
def texts(spark):
    schema = "text string, other string, number int, numbers array<int>, word_vectors array<float>, there string"
    tokens = StructField("tokens", ANNOTATIONS, metadata={"annotatorType": "token"})
    structs = spark.createDataFrame([], schema).schema.add(tokens)
    return spark.createDataFrame([], StructType(structs.fields))


@pytest.fixture
def stage(tiny):
    return InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols("text").setOutputCol("vector")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param(
            {"inputCols": "txt"},
            "there is no column 'txt'; the columns are 'text', 'other', 'number'",
            id="no such column",
        ),
        pytest.param(
            {"inputCols": "number"},
            "column 'number' is int, expected string or array<string> or array of annotations",
            id="wrong type",
        ),
        pytest.param({"inputCols": "numbers"}, "column 'numbers' is array<int>, expected", id="wrong array"),
        pytest.param(
            {"inputCols": "tokens"},
            "column 'tokens' has the annotatorType 'token', expected document",
            id="wrong annotatorType",
        ),
        pytest.param(
            {"inputCols": ["text", "other"]},
            "2 inputCols ['text', 'other'] but 1 output columns ['vector']; set as many outputCols as inputCols",
            id="two columns to outputCol",
        ),
        pytest.param({"outputCols": ["a", "b"]}, "1 inputCols ['text'] but 2 output columns", id="more outputCols"),
        pytest.param({"outputCol": "there"}, "the output column 'there' exists already", id="output column exists"),
        pytest.param({"outputCol": "text"}, "the output column 'text' exists already", id="output is the input"),
        pytest.param(
            {"inputCols": ["text", "other"], "outputCols": ["a", "a"]}, "'a' exists already", id="same output twice"
        ),
        pytest.param({"instructionCol": "why"}, "there is no column 'why'", id="no such instructionCol"),
        pytest.param({"instructionCol": "number"}, "'number' is int, expected string", id="wrong instructionCol"),
        pytest.param(
            {"maxSentenceLength": 513}, "maxSentenceLength is 513, but 'tiny' reads at most 512 tokens", id="limit"
        ),
        pytest.param(
            {"instruction": "word " * 600}, "tokens of the limit of 512, which leaves no room", id="long instruction"
        ),
        pytest.param(
            {"instruction": "Represent this: ", "maxSentenceLength": 4},
            "tokens of the limit of 4, which leaves no room for a text",
            id="instruction over a small limit",
        ),
        pytest.param({"model": "instructor_bse"}, "unknown model 'instructor_bse': expected one of", id="unknown name"),
        pytest.param({"model": "instructor-bse"}, "did you mean 'instructor_base'", id="almost a known name"),
    ],
)
def test_transform(texts, stage, params, message):
    for name, value in params.items():
        getattr(stage, f"set{name[0].upper()}{name[1:]}")(value)
    with pytest.raises(ValueError, match=re.escape(message)):
        stage.transform(texts)


def test_two_kinds_of_output_columns(texts, stage):
    """The last setter counts; what a param map or the constructor sets beside it is an error."""
    stage.setOutputCols(["a"])
    with pytest.raises(ValueError, match=r"both outputCol 'v' and outputCols \['a'\] are set; clear one of them"):
        stage.transform(texts, {stage.outputCol: "v"})
    assert stage.setOutputCol("v").transform(texts).columns[-1] == "v"


def test_an_instruction_may_fill_the_limit_of_a_row(texts, stage):
    """The driver only checks the stage's own instruction; with instructionCol, the rows have their own instructions."""
    stage.setInstruction("word " * 600).setInstructionCol("other").transform(texts)


@pytest.mark.parametrize(("unset", "setter"), [("inputCols", "setInputCols"), ("outputCol", "setOutputCol")])
def test_not_set(texts, stage, unset, setter):
    stage.clear(stage.getParam(unset))
    with pytest.raises(ValueError, match=rf"needs {unset}: call {setter}\(\.\.\.\)"):
        stage.transform(texts)


def test_unknown_precision(stage):
    with pytest.raises(ValueError, match=r"'float16'.*float32, bfloat16"):
        stage.setPrecision("float16")


def test_unknown_language():
    with pytest.raises(ValueError, match=r"no 'instructor_base' for lang 'de'.*lang='en'"):
        InstructorEmbeddings.pretrained(lang="de")


@pytest.mark.parametrize("missing", ["pytorch_model.bin", "config.json", "2_Dense"])
def test_checkpoint_without(texts, stage, tmp_path, missing):
    folder = copy_tiny(tmp_path / "broken", without=[missing])
    with pytest.raises(FileNotFoundError, match=re.escape(str(folder))):
        stage.setModel(str(folder)).transform(texts)


def test_no_such_folder(texts, stage, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no checkpoint folder {tmp_path}/none"):
        stage.setModel(f"{tmp_path}/none").transform(texts)


def test_a_cache_that_vanished_is_made_again_but_half_of_one_is_an_error(texts, stage, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    stage.transform(texts)
    (prepared,) = (tmp_path / "spark_instructor").iterdir()
    shutil.rmtree(prepared)
    stage.transform(texts)
    (prepared / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=f"{prepared} lacks {WEIGHTS}: the prepared model 'tiny' is incomplete"):
        stage.transform(texts)


def test_what_a_local_master_lacks(texts, stage, monkeypatch):
    """The workers run on the driver's machine, so the driver finds out before a job does."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="device is 'cuda', but torch finds no GPU on this machine"):
        stage.setDevice("cuda").transform(texts)
    with monkeypatch.context() as patch, pytest.raises(ImportError, match="lacks pandas, pyarrow, torch"):
        patch.setattr("spark_instructor.udf.shutil.which", lambda python: "/other/python")
        patch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(stdout="pandas\npyarrow\ntorch"))
        check_worker_python.cache_clear()
        stage.setDevice("cpu").transform(texts)
    check_worker_python.cache_clear()


def test_an_instruction_that_is_joined_to_the_text(texts, stage):
    with pytest.warns(UserWarning, match="'Sort the review' is joined .* a colon and a space, 'Sort the review: '"):
        stage.setInstruction("Sort the review").transform(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for instruction in ("", "Sort the review", "Sort the review:", "Sort the review: ", "Sort the review\n"):
            stage.setInstruction(instruction).transform(texts)
