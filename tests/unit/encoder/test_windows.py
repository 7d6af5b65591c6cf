"""cut_windows puts every token into a window that fits the limit; the module is imported without torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import run_python

from spark_instructor.encoder.windows import cut_windows

EOS = 1


def cut(content, instruction_tokens, max_length, max_windows):
    ids = np.array([*content, EOS], np.int32)
    windows, tokens = cut_windows(7, ids, instruction_tokens, max_length, max_windows)
    assert all((window.text, window.instruction_tokens) == (7, instruction_tokens) for window in windows)
    return [window.ids.tolist() for window in windows], tokens


@pytest.mark.parametrize(
    ("max_length", "ids", "tokens"), [(5, [5, 6, 7, 8, EOS], 5), (4, [5, 6, 7, EOS], 4), (2, [5, EOS], 2)]
)
def test_one_window_is_the_truncated_text(max_length, ids, tokens):
    assert cut([5, 6, 7, 8], 0, max_length, max_windows=1) == ([ids], tokens)


def test_later_windows_repeat_the_instruction():
    windows, tokens = cut([90, 91, *range(10, 22)], 2, max_length=13, max_windows=9)
    assert windows == [[90, 91, *range(10, 20), EOS], [90, 91, 19, 20, 21, EOS]]
    assert tokens == 15


@given(st.integers(0, 300), st.integers(0, 30), st.integers(2, 60), st.integers(1, 8))
def test_any_text(length, instruction_tokens, max_length, max_windows):
    instruction_tokens = min(instruction_tokens, max_length - 1)
    content = list(range(10, 10 + length))
    windows, tokens = cut(content, instruction_tokens, max_length, max_windows)
    assert 1 <= len(windows) <= max_windows
    assert all(len(ids) <= max_length and ids[-1] == EOS for ids in windows)
    assert all(ids[:instruction_tokens] == content[:instruction_tokens] for ids in windows[1:])
    read = {token for ids in windows for token in ids[:-1]}
    assert read == set(content[: tokens - 1])
    assert tokens == length + 1 or len(windows) == max_windows or instruction_tokens == max_length - 1


def test_import_loads_no_torch(tmp_path):
    """Spark's driver reads the names of the settings from this module, and it may have no torch."""
    code = "import sys, spark_instructor.encoder.windows; print(*{name.partition('.')[0] for name in sys.modules})"
    modules = set(run_python("-c", code, cwd=tmp_path).split())
    assert "numpy" in modules
    assert not {"torch", "tokenizers", "safetensors"} & modules


@pytest.mark.parametrize(
    ("before", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")], ids=["default", "the user's"]
)
@pytest.mark.parametrize("module", ["model", "linear"])
def test_wait_policy_is_set_before_torch_is_imported(monkeypatch, tmp_path, module, before, expected):
    """OpenMP reads the variable only once, when torch loads the library."""
    code = """
import importlib, os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
            sys.exit()

sys.meta_path.insert(0, Finder())
importlib.import_module("spark_instructor.encoder." + sys.argv[1])
"""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert run_python("-c", code, module, cwd=tmp_path, **before).split() == [expected]
