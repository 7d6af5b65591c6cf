"""What a task does to cut texts: its results for every kind of row, in bounded pieces, without torch."""

import json

import pyarrow as pa
import pytest
from processes import run_python

from spark_instructor import chunks
from spark_instructor.encoder import prepare_model
from spark_instructor.models.host_cache import ModelLocation

ROWS = [["the cat sat. " * 40, None, ""], None, [], ["the"], [None, "\u00e9\U0001f600 end"]]


@pytest.fixture(scope="module")
def arguments(tiny, own_cache, tmp_path_factory):
    model = prepare_model(tiny, into=tmp_path_factory.mktemp("model") / "prepared")
    location = ModelLocation("tiny", model.folder_name, str(model.path), None)
    return {
        "model": location.__dict__,
        "instruction": "Represent: ",
        "num_tokens": 60,
        "token_overlap": 0,
        "trim_whitespace": True,
    }


def split(arguments, rows):
    pieces = list(chunks.split_arrays(arguments, iter([pa.array(rows, pa.list_(pa.string()))])))
    return [row for piece in pieces for row in piece.to_pylist()], len(pieces)


def test_every_kind_of_row(arguments):
    (long, null, empty, short, places), pieces = split(arguments, ROWS)
    assert pieces == 1
    count = len(long[chunks.TEXT])
    assert count > 1 and long[chunks.CHUNK] == list(range(count)) and long[chunks.CHUNKS] == [count] * count
    assert set(long[chunks.DOCUMENT]) == {0} and max(long[chunks.TOKENS]) <= 60
    assert null == dict.fromkeys(null) and empty[chunks.TEXT] == [] and short[chunks.TEXT] == ["the"]
    assert (places[chunks.DOCUMENT], places[chunks.BEGIN], places[chunks.END]) == ([1], [0], [6])


def test_pieces_do_not_matter(monkeypatch, arguments):
    expected, _ = split(arguments, ROWS)
    monkeypatch.setattr(chunks, "_MAX_BYTES", 100)
    found, pieces = split(arguments, ROWS)
    assert found == expected and pieces > 1


def test_pandas(arguments):
    expected, _ = split(arguments, ROWS)
    series = pa.array(ROWS, pa.list_(pa.string())).to_pandas()
    (frame,) = chunks.split_series(arguments, iter([series]))
    for row, values in zip(expected, frame.to_dict("records"), strict=True):
        assert {name: None if value is None else list(value) for name, value in values.items()} == row


def test_sentences():
    arguments = {"custom_bounds": ["\n"], "min_length": 2}
    batches = [pa.array(ROWS, pa.list_(pa.string())), pa.array([["One.\nTwo. 3", None, "\u00e9\U0001f600.\n4 4"]])]
    *_, null, empty, short, places, last = [
        row for piece in chunks.detect_arrays(arguments, iter(batches)) for row in piece.to_pylist()
    ]
    assert null == dict.fromkeys(null) and empty[chunks.TEXT] == [] and short[chunks.TEXT] == ["the"]
    assert (places[chunks.DOCUMENT], places[chunks.BEGIN], places[chunks.END]) == ([1], [0], [6])
    assert last == {
        chunks.DOCUMENT: [0, 0, 2, 2],
        chunks.SENTENCE: [0, 1, 2, 3],
        chunks.BEGIN: [0, 5, 0, 5],
        chunks.END: [3, 8, 3, 7],
        chunks.TEXT: ["One.", "Two.", "\u00e9\U0001f600.", "4 4"],
    }
    series = (batch.to_pandas() for batch in batches)
    frames = list(chunks.detect_series(arguments, series))
    assert [list(text) for text in frames[1][chunks.TEXT]] == [last[chunks.TEXT]]


SPLIT = """
import json, sys
import pyarrow as pa
from spark_instructor.chunks import detect_arrays, split_arrays

(result,) = split_arrays(json.loads(sys.argv[1]), iter([pa.array([["one", "two"]])]))
(found,) = detect_arrays({}, iter([pa.array([["Three. Four."]])]))
print(json.dumps([result[0].as_py()["text"] + found[0].as_py()["text"], "torch" in sys.modules]))
"""


def test_no_torch(arguments, tmp_path):
    """A worker that only cuts texts loads the tokenizer alone: torch takes seconds and hundreds of megabytes."""
    assert json.loads(run_python("-c", SPLIT, json.dumps(arguments), cwd=tmp_path)) == [
        ["one", "two", "Three.", "Four."],
        False,
    ]
