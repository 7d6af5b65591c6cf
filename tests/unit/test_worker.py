"""The code that runs on executors, tested without Spark: rows and texts, the cache of models, and devices."""

import dataclasses
import json
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import run_python

from spark_instructor import worker
from spark_instructor.encoder import Encoded, InstructorModel
from spark_instructor.models.host_cache import HostModel, ModelLocation
from spark_instructor.worker import (
    Job,
    choose_device,
    convert_series,
    embed_arrays,
    embed_columns,
    embed_frames,
    embed_series,
    embed_structs,
    load_cached,
)


def job(**changes):
    settings = {"nested": (False,), "with_counts": False, "with_metrics": False, "instruction": "", "device": "cpu"}
    limits = {"max_length": None, "batch_size": None, "long_text": "truncate"}
    return Job(**{"model": None, "output_type": "float", **limits, **settings, **changes})


LONGEST_PAIR = 24  # instruction, bar and text; the rest of a vector is -1


class EchoModel:
    """A model whose vector holds the characters of instruction and text, so a test notices if rows are mixed up."""

    def __init__(self):
        self.calls = []

    def encode_counted(self, instruction, texts, **settings):
        self.calls.append(len(texts))
        instructions = [instruction] * len(texts) if isinstance(instruction, str) else instruction
        pairs = [f"{own or ''}|{text}" for own, text in zip(instructions, texts, strict=True)]
        vectors = np.array([echo(pair) for pair in pairs], np.float32).reshape(-1, LONGEST_PAIR)
        tokens = np.array([len(pair) for pair in pairs], np.int32)
        return Encoded(
            vectors,
            tokens,
            np.array([len(text) > 3 for text in texts], bool),
            np.array([text.count("a") for text in texts], np.int32),
            len(set(pairs)),
        )


def echo(pair):
    """Return the vector that EchoModel gives a pair of instruction and text."""
    return [*map(ord, pair), *[-1] * (LONGEST_PAIR - len(pair))]


TEXT = st.none() | st.text(max_size=5)
ROW = st.tuples(TEXT, st.none() | st.lists(TEXT, max_size=4), TEXT)


@pytest.fixture(params=["Arrow", "pandas"])
def embed_rows(request, monkeypatch):
    """Return a function that embeds a struct of columns as Spark's UDFs do, and returns the results as lists."""

    def embed(job, columns):
        monkeypatch.setattr(worker, "_load_job", lambda _: (job, EchoModel()))
        arrays = [pa.array(rows, type_) for rows, type_ in columns.values()]
        struct = pa.StructArray.from_arrays(arrays, list(columns))
        if request.param == "Arrow":
            (result,) = embed_structs(dataclasses.asdict(job), iter([struct]))
            return {field.name: result.field(field.name).to_pylist() for field in result.type}
        frame = pd.DataFrame({name: array.to_pandas() for name, array in zip(columns, arrays, strict=True)})
        (result,) = embed_frames(dataclasses.asdict(job), iter([frame]))
        return {name: [to_list(cell) for cell in result[name]] for name in result}

    return embed


def to_list(cell):
    return [to_list(element) for element in cell] if isinstance(cell, np.ndarray) else cell


TEXTS, LISTS = pa.string(), pa.list_(pa.string())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, min_size=1, max_size=8))
def test_each_row_gets_its_own(embed_rows, rows):
    columns = {"text": ([row[0] for row in rows], TEXTS), "texts": ([row[1] for row in rows], LISTS)}
    columns["own"] = ([row[2] for row in rows], TEXTS)
    output = embed_rows(job(nested=(False, True), with_counts=True, instruction=None), columns)

    assert all(len(values) == len(rows) for values in output.values())
    for row, (text, texts, instruction) in enumerate(rows):
        cells = [text, *(texts or [])]
        pairs = [None if cell is None else f"{instruction or ''}|{cell}" for cell in cells]
        vectors = [pair and echo(pair) for pair in pairs]
        assert output["vectors_0"][row] == vectors[0]
        assert output["vectors_1"][row] == (None if texts is None else vectors[1:])
        assert output["tokens_1"][row] == (None if texts is None else [pair and len(pair) for pair in pairs[1:]])
        assert output["truncated_0"][row] == (None if text is None else len(text) > 3)


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA])
def test_nulls_as_pandas_spells_them(monkeypatch, null):
    def embed_frame(job, **columns):
        monkeypatch.setattr(worker, "_load_job", lambda _: (job, EchoModel()))
        frame = pd.DataFrame({name: pd.Series(rows, dtype=object) for name, rows in columns.items()})
        (result,) = embed_frames(dataclasses.asdict(job), iter([frame]))
        return [to_list(cell) for cell in result["vectors_0"]]

    assert embed_frame(job(instruction=None), text=["a", null], own=[null, "i"]) == [echo("|a"), None]
    nested = [np.array(["a", null], dtype=object), None]
    assert embed_frame(job(nested=(True,)), texts=nested) == [[echo("|a"), None], None]


def test_counts_only_where_asked(embed_rows):
    columns = {"text": (["a"], TEXTS)}
    assert list(embed_rows(job(), columns)) == ["vectors_0"]
    assert list(embed_rows(job(with_counts=True), columns)) == ["vectors_0", "tokens_0", "truncated_0"]


@pytest.mark.parametrize("type_", [LISTS, pa.large_list(pa.large_string())])
def test_slices_and_large_types(type_):
    """Spark may send slices, and large types if spark.sql.execution.arrow.useLargeVarTypes is set."""
    rows = pa.array([["a"], ["b", None, "c"], None, [], ["d"]], type_)[1:]
    (result,) = embed_columns(EchoModel(), job(nested=(True,)), [rows])
    assert result.field("vectors_0").to_pylist() == [[echo("|b"), None, echo("|c")], None, [], [echo("|d")]]


class TestPieces:
    """A large batch is embedded in pieces, so a worker's memory does not grow with it."""

    @pytest.fixture(autouse=True)
    def small_pieces(self, monkeypatch):
        monkeypatch.setattr(worker, "_MAX_BYTES", 40)
        monkeypatch.setattr(worker, "_BYTES_PER_TEXT", 10)

    @pytest.mark.parametrize(
        ("rows", "type_", "texts_per_call"),
        [
            pytest.param(["a"] * 10, TEXTS, [4, 4, 2], id="texts"),
            pytest.param(["a" * 20, "b" * 21, "c"], TEXTS, [1, 2], id="long texts"),
            pytest.param([["a"] * 3, ["b"], None, [], ["c"] * 2], LISTS, [4, 2], id="lists"),
            pytest.param([["a"], ["b"] * 9, ["c"]], LISTS, [1, 9, 1], id="a list that is too long"),
            pytest.param([["a" * 20, "b" * 20], ["c"]], LISTS, [2, 1], id="lists of long texts"),
        ],
    )
    def test_texts_per_piece(self, rows, type_, texts_per_call):
        model = EchoModel()
        settings = job(nested=(type_ is LISTS,), with_metrics=True)
        pieces = [*embed_columns(model, settings, [pa.array(rows, type_)])]
        assert model.calls == texts_per_call
        vectors = [vector for piece in pieces for vector in piece.field("vectors_0").to_pylist()]
        expected = [row and [echo(f"|{text}") for text in row] for row in rows]
        assert vectors == (expected if type_ is LISTS else [echo(f"|{text}") for text in rows])
        assert [count for piece in pieces for count in piece.field("distinct").to_pylist() if count]
        unknown = [piece.field("unknown").to_pylist() for piece in pieces]
        assert sum(sum(counts) for counts in unknown) == str(rows).count("a")
        assert not any(count for counts in unknown for count in counts[1:])  # only the first row of a piece counts

    def test_pandas_gets_smaller_pieces(self, monkeypatch):
        monkeypatch.setattr(worker, "_MAX_BYTES", 1000)
        monkeypatch.setattr(worker, "_TEXTS_PER_PANDAS_PIECE", 3)
        monkeypatch.setattr(worker, "_load_job", lambda _: (job(), EchoModel()))
        pieces = [*embed_series(dataclasses.asdict(job(model=NOWHERE)), iter([pd.Series(list("abcd"))]))]
        assert [len(piece) for piece in pieces] == [3, 1]


def test_settings_reach_the_model(tiny):
    model = InstructorModel.from_pretrained(tiny)
    text = "a much longer text than the limit lets through " * 3
    expected = model.encode_counted("i: ", [text], max_length=16, long_text="average", batch_size=1)
    settings = job(instruction="i: ", with_counts=True, max_length=16, long_text="average", batch_size=1)
    (output,) = embed_columns(model, settings, [pa.array([text])])
    np.testing.assert_allclose(output.field("vectors_0").to_pylist(), expected.vectors, atol=1e-6)
    assert output.field("tokens_0").to_pylist() == expected.tokens.tolist() and expected.tokens[0] > 16


def load(folder, device, file_state=""):
    return load_cached(HostModel(folder, file_state), device)


class TestLoadCached:
    @pytest.fixture(autouse=True)
    def loads(self, monkeypatch):
        """Empty the cache, and return the list of loads that take place."""
        loads = []
        monkeypatch.setattr(worker, "_models", OrderedDict())
        monkeypatch.setattr(InstructorModel, "load", lambda folder, device: loads.append((folder, device)) or object())
        return loads

    def test_one_load_per_folder_and_device(self, loads):
        assert load("a", "cpu") is load("a", "cpu")
        assert load("a", "cuda:0") is not load("a", "cpu")
        assert loads == [("a", "cpu"), ("a", "cuda:0")]

    def test_files_that_were_altered_are_loaded_again(self, loads):
        assert load("a", "cpu", "as prepared") is not load("a", "cpu", "altered and mended")

    def test_the_least_used_makes_room(self, loads):
        for folder in "abacab":
            load(folder, "cpu")
        assert [folder for folder, _ in loads] == ["a", "b", "c", "b"]


def on_gpu(*addresses):
    return SimpleNamespace(resources=lambda: {"gpu": SimpleNamespace(addresses=list(addresses))})


NO_GPU = SimpleNamespace(resources=dict)


class TestChooseDevice:
    @pytest.mark.parametrize(
        ("wanted", "has_cuda", "task", "device"),
        [
            ("cpu", True, on_gpu("1"), "cpu"),
            ("auto", False, NO_GPU, "cpu"),
            ("auto", True, on_gpu("3"), "cuda:3"),
            ("auto", True, NO_GPU, "cuda:0"),
            ("cuda", True, on_gpu("2"), "cuda:2"),
            ("cuda", True, None, "cuda:0"),
        ],
    )
    def test_the_tasks_own(self, monkeypatch, wanted, has_cuda, task, device):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
        assert choose_device(wanted, task) == device

    def test_no_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(RuntimeError, match=r"finds no GPU.*setDevice\('auto'\)"):
            choose_device("cuda", NO_GPU)


@pytest.mark.parametrize("cpus", [1, 3])
def test_cpus_of_the_task(cpus, tmp_path):
    """A new worker sets OpenMP's variables before it imports torch."""
    code = """
import json, os, sys
from spark_instructor import worker

before = "torch" in sys.modules
worker.use_cpus(int(sys.argv[1]))
import torch
names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", "OMP_WAIT_POLICY")
print(json.dumps([before, torch.get_num_threads(), *(os.environ[name] for name in names)]))
"""
    output = json.loads(run_python("-c", code, cpus, cwd=tmp_path))
    assert output == [False, cpus, str(cpus), str(cpus), "true" if cpus > 1 else "false", "PASSIVE"]


@pytest.mark.parametrize("output_type", ["float", "half", "int8", "binary"])
def test_cells_that_are_all_null_are_converted(output_type):
    """A batch of pandas objects does not tell the type of its cells, if all are null."""
    arguments = {"metadata": {"dimension": 8, "outputType": "half"}, "name": "vector", "output_type": output_type}
    (converted,) = convert_series(arguments, iter([pd.Series([None] * 3, dtype=object)]))
    assert converted.tolist() == [None] * 3


NOWHERE = ModelLocation("tiny", "tiny-float32", "/nowhere", None)


@pytest.mark.parametrize("function", [embed_arrays, embed_series])
class TestArguments:
    """The arguments of an expression, whose types the driver does not know."""

    @pytest.fixture
    def call(self, function, monkeypatch):
        monkeypatch.setattr(worker, "_load_job", lambda _: (job(), EchoModel()))

        def call(*columns):
            if function is embed_series:
                columns = [to_series(column) for column in columns]
            batch = columns[0] if len(columns) == 1 else tuple(columns)
            return [
                vector for piece in function(dataclasses.asdict(job(model=NOWHERE)), iter([batch])) for vector in piece
            ]

        return call

    def test_instructions(self, call):
        vectors = call(pa.array(["a", None]), pa.array([None, "i"]))
        assert vectors[0].tolist() if isinstance(vectors[0], np.ndarray) else vectors[0].as_py() == echo("|a")

    def test_only_nulls(self, call):
        assert [getattr(vector, "as_py", lambda: None)() for vector in call(pa.nulls(2))] == [None, None]

    @pytest.mark.parametrize("others", [[], [pa.array(["i"])]], ids=["alone", "with an instruction"])
    def test_a_struct(self, call, others):
        with pytest.raises(TypeError, match="expected a column of texts, got a struct of title, body"):
            call(pa.array([{"title": "a", "body": "b"}]), *others)

    def test_numbers(self, call):
        with pytest.raises(TypeError, match="expected a column of texts, got one of int64: cast it to string"):
            call(pa.array([1]))

    def test_three(self, call):
        with pytest.raises(ValueError, match="optionally an instruction, got 3 arguments"):
            call(*[pa.array(["a"])] * 3)


def to_series(column):
    """Return what a pandas UDF gets instead of an array: a series, or a frame for a struct."""
    return pd.DataFrame(column.to_pylist()) if pa.types.is_struct(column.type) else column.to_pandas()
