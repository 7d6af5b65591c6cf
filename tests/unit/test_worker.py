"""What runs on an executor, without Spark: rows and texts, the cache of models, devices."""

import dataclasses
import json
import pickle
import sys
from collections import OrderedDict
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import run_python
from pyspark import cloudpickle
from pyspark.sql.types import StructType

from spark_instructor import worker
from spark_instructor.encoder import Encoded, InstructorModel
from spark_instructor.models.host_cache import Shipped
from spark_instructor.stages.annotation import VECTOR
from spark_instructor.worker import Job, cached_model, embed_frame, embed_series, embedding_udf, torch_device


def job(**changes):
    settings = {"nested": (False,), "counted": False, "observed": False, "instruction": "", "device": "cpu"}
    return Job(**{"model": None, "max_length": None, "max_batch": None, "long_text": "truncate", **settings, **changes})


class EchoModel:
    """Gives each text back as its own "vector", so that a row that took another's is seen."""

    def encode_counted(self, instruction, texts, **settings):
        instructions = [instruction] * len(texts) if isinstance(instruction, str) else instruction
        joined = [f"{one}|{text}" for one, text in zip(instructions, texts, strict=True)]
        vectors = np.array(joined, dtype=object)
        tokens, truncated = np.array([len(one) for one in joined]), np.array([len(text) > 3 for text in texts])
        return Encoded(vectors, tokens, truncated, len(set(joined)))


TEXT = st.none() | st.text(max_size=5)
ROW = st.tuples(TEXT, st.none() | st.lists(TEXT, max_size=4), TEXT)


@given(st.lists(ROW, max_size=8))
def test_each_row_gets_its_own(rows):
    frame = pd.DataFrame({i: pd.Series([row[i] for row in rows], dtype=object) for i in range(3)})
    found = embed_frame(EchoModel(), job(nested=(False, True), counted=True, instruction=None), frame)

    assert len(found) == len(rows)
    for row, (text, texts, instruction) in enumerate(rows):
        vectors = [None if one is None else f"{instruction or ''}|{one}" for one in [text, *(texts or [])]]
        assert found["v0"][row] == vectors[0]
        assert found["v1"][row] == (None if texts is None else vectors[1:])
        assert found["n1"][row] == (None if texts is None else [one and len(one) for one in vectors[1:]])
        assert found["t0"][row] == (None if text is None else len(text) > 3)


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA])
def test_nulls_as_pandas_spells_them(null):
    frame = pd.DataFrame({"text": pd.Series(["a", null], dtype=object), "own": pd.Series([null, "i"], dtype=object)})
    assert list(embed_frame(EchoModel(), job(instruction=None), frame)["v0"]) == ["|a", None]

    nested = pd.DataFrame({"texts": pd.Series([np.array(["a", null], dtype=object), None], dtype=object)})
    assert list(embed_frame(EchoModel(), job(nested=(True,)), nested)["v0"]) == [["|a", None], None]


def test_counts_only_where_asked():
    frame = pd.DataFrame({"text": ["a"]})
    assert list(embed_frame(EchoModel(), job(), frame)) == ["v0"]
    assert list(embed_frame(EchoModel(), job(counted=True), frame)) == ["v0", "n0", "t0"]


def test_settings_reach_the_model(tiny):
    model = InstructorModel.from_pretrained(tiny)
    text = "a much longer text than the limit lets through " * 3
    wanted = model.encode_counted("i: ", [text], max_length=16, long_text="average", max_batch=1)
    settings = job(instruction="i: ", counted=True, max_length=16, long_text="average", max_batch=1)
    found = embed_frame(model, settings, pd.DataFrame({"text": [text]}))
    np.testing.assert_allclose(found["v0"][0], wanted.vectors[0], atol=1e-6)
    assert found["n0"][0] == wanted.tokens[0] > 16


class TestCachedModel:
    @pytest.fixture(autouse=True)
    def loaded(self, monkeypatch):
        """The loads that took place, on an empty cache."""
        loads = []
        monkeypatch.setattr(worker, "_models", OrderedDict())
        monkeypatch.setattr(InstructorModel, "load", lambda folder, device: loads.append((folder, device)) or object())
        return loads

    def test_one_load_for_each_folder_and_device(self, loaded):
        assert cached_model("a", "cpu") is cached_model("a", "cpu")
        assert cached_model("a", "cuda:0") is not cached_model("a", "cpu")
        assert loaded == [("a", "cpu"), ("a", "cuda:0")]

    def test_files_that_were_altered_are_loaded_again(self, loaded):
        assert cached_model("a", "cpu", "as prepared") is not cached_model("a", "cpu", "altered and mended")

    def test_the_least_used_makes_room(self, loaded):
        for folder in "abacab":
            cached_model(folder, "cpu")
        assert [folder for folder, _ in loaded] == ["a", "b", "c", "b"]


def on_gpu(*addresses):
    return SimpleNamespace(resources=lambda: {"gpu": SimpleNamespace(addresses=list(addresses))})


NO_GPU = SimpleNamespace(resources=dict)


class TestTorchDevice:
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
        assert torch_device(wanted, task) == device

    def test_no_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(RuntimeError, match=r"finds no GPU.*setDevice\('auto'\)"):
            torch_device("cuda", NO_GPU)


@pytest.mark.parametrize("cpus", [1, 3])
def test_cpus_of_the_task(cpus, tmp_path):
    """In a fresh worker, OpenMP's variables are there before torch is."""
    code = """
import json, os, sys
from spark_instructor import worker

before = "torch" in sys.modules
worker._use_cpus(int(sys.argv[1]))
import torch
names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", "OMP_WAIT_POLICY")
print(json.dumps([before, torch.get_num_threads(), *(os.environ[name] for name in names)]))
"""
    found = json.loads(run_python("-c", code, cpus, cwd=tmp_path))
    assert found == [False, cpus, str(cpus), str(cpus), "true" if cpus > 1 else "false", "PASSIVE"]


NOWHERE = Shipped("tiny", "key", "/nowhere", None)


@pytest.mark.parametrize("others", [[], [pd.Series(["i"])]], ids=["alone", "with an instruction"])
def test_a_struct_in_place_of_texts(monkeypatch, others):
    monkeypatch.setattr(worker, "_task_model", lambda _: EchoModel())
    struct = pd.DataFrame({"title": ["a"], "body": ["b"]})
    batch = (struct, *others) if others else struct
    with pytest.raises(TypeError, match="expected a column of texts, got a struct of title, body"):
        next(embed_series(dataclasses.asdict(job(model=NOWHERE)), iter([batch])))


@pytest.mark.parametrize(
    "module", [None, ModuleType("spark_instructor")], ids=["the package", "but for another of its name"]
)
def test_a_worker_without_the_package(monkeypatch, module):
    """The UDF is pickled by value, so it runs far enough to say what is missing."""
    udf = embedding_udf(job(model=NOWHERE), StructType().add("v0", VECTOR))
    pickled = cloudpickle.dumps(udf.func)
    for name in [name for name in sys.modules if name.startswith("spark_instructor.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "spark_instructor", module)
    with pytest.raises(ImportError, match=r"spark_instructor.*%pip install.*venv-pack"):
        next(pickle.loads(pickled)(iter([])))


def test_a_worker_without_torch(monkeypatch):
    udf = embedding_udf(job(model=NOWHERE), StructType().add("v0", VECTOR))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"torch.*%pip install.*venv-pack"):
        next(udf.func(iter([])))
