"""T5's tokenizer gives the same ids whatever pipeline a checkpoint's files describe, and accepts every Python str."""

import json

import numpy as np
import pytest
from checkpoints import TINY
from hypothesis import given
from hypothesis import strategies as st
from processes import run_python
from sentencepiece import sentencepiece_model_pb2

from spark_instructor.encoder import T5Tokenizer, tokenizer
from spark_instructor.encoder.tokenizer import build_tokenizer

TEXTS = [
    "Hello world, how are you today?",
    "  two  spaces \n and\ta tab ",
    "ﬁne ＡＢＣ ① ½ é",
    "one </s> two <pad> three <unk> four <extra_id_0>five",
    "next\u0085line and\u2028separator",
    "😀👍🏽 emoji",
    "the " * 700,
    "",
]
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
STORED = {
    "as it is": {},
    "Metaspace alone": {"pre_tokenizer": METASPACE},
    "Metaspace in the old spelling": {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    },
    "no pre-tokenizer": {"pre_tokenizer": None},
    "truncation": {
        "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
    },
    "padding": {
        "padding": {
            "strategy": {"Fixed": 32},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<pad>",
        },
    },
    "no post-processor": {"post_processor": None},
    "an unreadable decoder": {"decoder": {"type": "of a later version"}},
}


@pytest.fixture(scope="module")
def golden_ids(tmp_path_factory):
    return encode_texts(build_tokenizer(TINY / "tokenizer.json", None), tmp_path_factory.mktemp("tokenizer"))


def write_tokenizer_json(folder, **changes):
    """Write the golden tokenizer.json with some of its keys changed, and return its path."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads((TINY / "tokenizer.json").read_text("utf-8")), **changes}), "utf-8")
    return path


def save_and_load(built, folder):
    built.save(str(folder / "built.json"))
    return T5Tokenizer(folder / "built.json")


def encode_texts(built, folder):
    return [ids.tolist() for ids in save_and_load(built, folder).encode(TEXTS)]


@pytest.mark.parametrize("changes", STORED.values(), ids=STORED)
def test_pipeline_is_set_whatever_is_stored(tmp_path, golden_ids, changes):
    assert encode_texts(build_tokenizer(write_tokenizer_json(tmp_path, **changes), None), tmp_path) == golden_ids


def test_metaspace_alone_would_differ(tmp_path, golden_ids):
    """Without the pipeline that `build_tokenizer` sets, such a file gives different ids for runs of spaces."""
    as_stored = T5Tokenizer(write_tokenizer_json(tmp_path, pre_tokenizer=METASPACE))
    assert [ids.tolist() for ids in as_stored.encode(TEXTS)] != golden_ids


def test_from_sentencepiece(tmp_path, golden_ids):
    assert encode_texts(build_tokenizer(None, TINY / "spiece.model"), tmp_path) == golden_ids


@pytest.mark.parametrize("kind", ["USER_DEFINED", "CONTROL"])
def test_user_defined_and_control_pieces(tmp_path, kind):
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((TINY / "spiece.model").read_bytes())
    model.pieces.add(piece="[MED]", type=getattr(model.SentencePiece, kind))
    (tmp_path / "spiece.model").write_bytes(model.SerializeToString())
    with pytest.raises(
        ValueError, match=r"spiece\.model has the piece '\[MED\]', which is user-defined or a control piece"
    ):
        build_tokenizer(None, tmp_path / "spiece.model")


def test_character_map_inside_a_sequence(tmp_path, golden_ids):
    own = json.loads((TINY / "tokenizer.json").read_text("utf-8"))["normalizer"]
    path = write_tokenizer_json(tmp_path, normalizer={"type": "Sequence", "normalizers": [own]})
    assert encode_texts(build_tokenizer(path, None), tmp_path) == golden_ids


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (
            lambda folder: write_tokenizer_json(folder, model={"type": "WordPiece", "vocab": {}}),
            "'WordPiece', not T5's Unigram",
        ),
        (lambda folder: write_tokenizer_json(folder, model=None), "not a readable T5 tokenizer"),
        (
            lambda folder: write_tokenizer_json(
                folder, normalizer={"type": "Precompiled", "precompiled_charsmap": "%"}
            ),
            "base64",
        ),
        (
            lambda folder: write_tokenizer_json(
                folder, added_tokens=[], model={"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}
            ),
            "no </s> token",
        ),
    ],
    ids=["WordPiece", "no model", "charsmap", "no eos"],
)
def test_not_a_t5_tokenizer(tmp_path, write, says):
    path = write(tmp_path)
    with pytest.raises(ValueError, match=says) as raised:
        build_tokenizer(path, None)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model": []}'])
def test_damaged_json(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a readable T5 tokenizer"):
        build_tokenizer(path, None)


def test_damaged_sentencepiece(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes((TINY / "spiece.model").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"spiece\.model is not a sentencepiece model"):
        build_tokenizer(None, path)


@pytest.fixture(scope="module")
def t5_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_and_load(build_tokenizer(TINY / "tokenizer.json", None), folder)
    return folder / "built.json"


@pytest.fixture(scope="module")
def t5(t5_file):
    return T5Tokenizer(t5_file)


@pytest.mark.parametrize("characters_per_portion", [1, 40, 10**9])
def test_portions_do_not_matter(monkeypatch, t5, golden_ids, characters_per_portion):
    monkeypatch.setattr(tokenizer, "_CHARACTERS_PER_PORTION", characters_per_portion)
    assert [ids.tolist() for ids in t5.encode(iter(TEXTS))] == golden_ids


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("ends in \ud83d", "ends in \ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ude00", "😀"),
    ],
    ids=ascii,
)
def test_surrogates(t5, text, read_as):
    """Surrogates, which UTF-8 cannot encode: a pair is read as its character, and a lone one as U+FFFD."""
    actual, expected = t5.encode([text, read_as])
    assert actual.tolist() == expected.tolist()
    assert t5.count_instruction_tokens(text) == t5.count_instruction_tokens(read_as)


@given(st.lists(st.text(st.characters(codec=None), max_size=30), max_size=5))
def test_every_text_has_ids(t5, texts):
    encoded = list(t5.encode(texts))
    assert len(encoded) == len(texts)
    assert all(ids.dtype == np.int32 and ids[-1] == 1 for ids in encoded)


LONG = 40_000


@pytest.mark.parametrize(
    "text",
    [
        "the cat sat on a mat. " * (LONG // 22),
        "line\n" * (LONG // 5),
        "the" + " " * LONG + "cat" * LONG,
        "\t \r\n" * (LONG // 4) + " end",
        "a" * LONG,
        "ab" * (LONG // 2) + "a",
        "the " * 10 + "theof" * (LONG // 5),
        "".join(np.random.default_rng(0).choice(list("etaoin shrdlu"), LONG)),
        "".join(np.random.default_rng(0).choice(list("etaoinshrdlu"), LONG)),
        "漢字" * (LONG // 2) + " the",
        "\x01" * LONG + "the",
        "\u00a0" * LONG + "the",
        "e\u0301" * (LONG // 2),
        "👩‍👩‍👧‍👦" * (LONG // 7),
        "</s>" * (LONG // 4),
        "<pad> the\ud800" * (LONG // 10),
    ],
    ids=lambda text: ascii(text[:8] + text[-4:]),
)
@pytest.mark.parametrize("max_tokens", [2, 64, 512])
def test_beginning_of_a_long_text(t5, text, max_tokens):
    (whole,), (beginning,) = t5.encode([text]), t5.encode([text], max_tokens)
    assert beginning[:max_tokens].tolist() == whole[:max_tokens].tolist()
    assert (len(beginning) > max_tokens) == (len(whole) > max_tokens)
    assert beginning[-1] == whole[-1]


@given(st.text("ab \n\u0301漢", min_size=1, max_size=12), st.integers(30, 300), st.integers(2, 20))
def test_beginning_of_any_long_text(t5, pattern, times, max_tokens):
    (whole,), (beginning,) = t5.encode([pattern * times]), t5.encode([pattern * times], max_tokens)
    assert beginning[:max_tokens].tolist() == whole[:max_tokens].tolist()


ONLY_A_BEGINNING = """
import resource, sys
from pathlib import Path
from spark_instructor.encoder import T5Tokenizer

t5 = T5Tokenizer(Path(sys.argv[1]))
texts = ["the cat sat. " * 800_000, " " * 10_000_000, "a" * 10_000_000]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print([len(ids) for ids in t5.encode(texts, 512)])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_ten_megabytes_are_not_all_read(t5_file):
    """Only a prefix of a long text is tokenized; tokenizing one of these texts in full would take about 400 MB."""
    lengths, megabytes = run_python("-c", ONLY_A_BEGINNING, t5_file, cwd=t5_file.parent).splitlines()
    words, blanks, one_word = json.loads(lengths)
    assert (blanks, words > 512, one_word > 512) == (1, True, True)
    assert int(megabytes) < 100


@pytest.mark.parametrize(
    ("instruction", "length"), [("", 0), (" \n", 0), ("the", 1), ("  the ", 1), ("</s>", 1), ("title:", 2)]
)
def test_count_instruction_tokens(t5, instruction, length):
    assert t5.count_instruction_tokens(instruction) == length
