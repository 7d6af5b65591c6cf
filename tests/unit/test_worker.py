"""The code that runs on executors, tested without Spark: rows and texts, the cache of models, and devices."""

import dataclasses
import json
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import run_python

from spark_instructor import worker
from spark_instructor.encoder import Encoded, InstructorModel
from spark_instructor.models.host_cache import HostModel, ModelLocation
from spark_instructor.worker import Job, choose_device, embed_frame, embed_series, load_cached


def job(**changes):
    settings = {"nested": (False,), "with_counts": False, "with_metrics": False, "instruction": "", "device": "cpu"}
    return Job(
        **{"model": None, "max_length": None, "batch_size": None, "long_text": "truncate", **settings, **changes}
    )


class EchoModel:
    """A model that returns each text as its "vector", so that a test notices if a row gets another row's vector."""

    def encode_counted(self, instruction, texts, **settings):
        instructions = [instruction] * len(texts) if isinstance(instruction, str) else instruction
        pairs = [f"{own}|{text}" for own, text in zip(instructions, texts, strict=True)]
        vectors = np.array(pairs, dtype=object)
        tokens, truncated = np.array([len(pair) for pair in pairs]), np.array([len(text) > 3 for text in texts])
        return Encoded(vectors, tokens, truncated, len(set(pairs)))


TEXT = st.none() | st.text(max_size=5)
ROW = st.tuples(TEXT, st.none() | st.lists(TEXT, max_size=4), TEXT)


@given(st.lists(ROW, max_size=8))
def test_each_row_gets_its_own(rows):
    frame = pd.DataFrame({i: pd.Series([row[i] for row in rows], dtype=object) for i in range(3)})
    output = embed_frame(EchoModel(), job(nested=(False, True), with_counts=True, instruction=None), frame)

    assert len(output) == len(rows)
    for row, (text, texts, instruction) in enumerate(rows):
        cells = [text, *(texts or [])]
        vectors = [None if cell is None else f"{instruction or ''}|{cell}" for cell in cells]
        assert output["vectors_0"][row] == vectors[0]
        assert output["vectors_1"][row] == (None if texts is None else vectors[1:])
        assert output["tokens_1"][row] == (
            None if texts is None else [vector and len(vector) for vector in vectors[1:]]
        )
        assert output["truncated_0"][row] == (None if text is None else len(text) > 3)


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA])
def test_nulls_as_pandas_spells_them(null):
    frame = pd.DataFrame({"text": pd.Series(["a", null], dtype=object), "own": pd.Series([null, "i"], dtype=object)})
    assert list(embed_frame(EchoModel(), job(instruction=None), frame)["vectors_0"]) == ["|a", None]

    nested = pd.DataFrame({"texts": pd.Series([np.array(["a", null], dtype=object), None], dtype=object)})
    assert list(embed_frame(EchoModel(), job(nested=(True,)), nested)["vectors_0"]) == [["|a", None], None]


def test_counts_only_where_asked():
    frame = pd.DataFrame({"text": ["a"]})
    assert list(embed_frame(EchoModel(), job(), frame)) == ["vectors_0"]
    assert list(embed_frame(EchoModel(), job(with_counts=True), frame)) == ["vectors_0", "tokens_0", "truncated_0"]


def test_settings_reach_the_model(tiny):
    model = InstructorModel.from_pretrained(tiny)
    text = "a much longer text than the limit lets through " * 3
    expected = model.encode_counted("i: ", [text], max_length=16, long_text="average", batch_size=1)
    settings = job(instruction="i: ", with_counts=True, max_length=16, long_text="average", batch_size=1)
    output = embed_frame(model, settings, pd.DataFrame({"text": [text]}))
    np.testing.assert_allclose(output["vectors_0"][0], expected.vectors[0], atol=1e-6)
    assert output["tokens_0"][0] == expected.tokens[0] > 16


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
worker._use_cpus(int(sys.argv[1]))
import torch
names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", "OMP_WAIT_POLICY")
print(json.dumps([before, torch.get_num_threads(), *(os.environ[name] for name in names)]))
"""
    output = json.loads(run_python("-c", code, cpus, cwd=tmp_path))
    assert output == [False, cpus, str(cpus), str(cpus), "true" if cpus > 1 else "false", "PASSIVE"]


NOWHERE = ModelLocation("tiny", "tiny-float32", "/nowhere", None)


@pytest.mark.parametrize("others", [[], [pd.Series(["i"])]], ids=["alone", "with an instruction"])
def test_a_struct_in_place_of_texts(monkeypatch, others):
    monkeypatch.setattr(worker, "_load_job", lambda _: (job(), EchoModel()))
    struct = pd.DataFrame({"title": ["a"], "body": ["b"]})
    batch = (struct, *others) if others else struct
    with pytest.raises(TypeError, match="expected a column of texts, got a struct of title, body"):
        next(embed_series(dataclasses.asdict(job(model=NOWHERE)), iter([batch])))
