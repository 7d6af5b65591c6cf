"""tokenizer.json: wrong models, vocabularies, added tokens and normalizers."""

import json
import struct
from base64 import b64encode

from checkpoints import TINY

from . import damage
from .case import CONFIG, TOKENIZER, acceptance, refusal, shorten
from .damage import NESTED_LIST

STORED = json.loads((TINY / TOKENIZER).read_text("utf-8"))
VOCAB = STORED["model"]["vocab"]
IDS = {piece: number for number, (piece, _) in enumerate(VOCAB)}
ADDED = STORED["added_tokens"]

TRUNCATION = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}

# The tokenizers library accepts the first two when it loads them, but panics when it uses them.
NO_CHARSMAPS = [bytes(64), struct.pack("<I", 0) + b"abc", b"\xff" * 64, struct.pack("<I", 2**31) + bytes(64), b"abc"]
NO_CHARSMAPS += [struct.pack("<I", 1024) + bytes(i * i * 31 >> 3 & 127 for i in range(1024)) + b"a\0b\0"]

# Keys of the file and their wrong values; None is written as null.
WRONG_KEYS = [
    ("model", [None, True, 3, "Unigram", [], {}, NESTED_LIST]),
    ("added_tokens", [True, 3, "x", {}, [1], ["</s>"], [{}], [{"id": "x"}], NESTED_LIST]),
    ("version", [None, True, 3, "9.0", []]),
    ("truncation", [3, {"a": 1}, {**TRUNCATION, "direction": "Left"}]),
    ("padding", [3, {"a": 1}]),
]
WRONG_KEYS_OF_MODEL = [
    ("type", ["BPE", "WordPiece", "WordLevel", "", "x" * 10_000, 3, True, [], {}, NESTED_LIST]),
    (
        "vocab",
        [None, True, 3, "x", [], {}, IDS, [1], [["a"]], [["a", "b"]], [[1, 2.0]], [["a", 1.0, 2]], NESTED_LIST],
    ),
    ("unk_id", [None, True, -1, 0.5, "2", [], 10**6, 2**64, 10**30]),
]
OTHER_MODELS = {
    "a BPE model": {"type": "BPE", "vocab": IDS, "merges": []},
    "a WordLevel model": {"type": "WordLevel", "vocab": IDS, "unk_token": "<unk>"},
}
WRONG_VOCABS = {
    **{f"a score of {score!r}": [*VOCAB[:-1], ["x", score]] for score in (float("nan"), float("inf"), None, "x", True)},
    "no </s>": [["<x>" if piece == "</s>" else piece, score] for piece, score in VOCAB],
}
WRONG_ADDED_TOKENS = {
    **{f"of id {number!r}": [{**ADDED[0], "id": number}] for number in (-1, "x", None, 0.5, 2**32, 10**30)},
    **{f"of content {content!r}": [*ADDED, {**ADDED[0], "content": content}] for content in (None, 3, [])},
}
CHARSMAPS = [None, True, 3, [], {}, "", "%", "é", *(b64encode(content).decode() for content in NO_CHARSMAPS)]
WRONG_SEQUENCES = [True, 3, {"a": 1}, "x", [{"type": "Precompiled", "precompiled_charsmap": "%"}]]

# T5's own parts replace these.
REPLACED = ["pre_tokenizer", "post_processor", "decoder"]

MORE_TOKENS = [{**ADDED[0], "id": 1000 + i, "content": f"<more_{i}>"} for i in range(100)]
MORE_PIECES = [[f"piece{i}", -20.0] for i in range(100)]


def cases():
    for key, values in WRONG_KEYS:
        for value in values:
            yield with_key(refusal, f"{key} = {shorten(value)}", key, value)
    for key, values in WRONG_KEYS_OF_MODEL:
        for value in values:
            yield with_model(f"model.{key} = {shorten(value)}", **{key: value})
    for what, model in OTHER_MODELS.items():
        yield with_key(refusal, f"has {what}", "model", model)
    for what, vocab in WRONG_VOCABS.items():
        yield with_model(f"has {what}", vocab=vocab)
    for what, tokens in WRONG_ADDED_TOKENS.items():
        yield with_key(refusal, f"has an added token {what}", "added_tokens", tokens)
    for charsmap in CHARSMAPS:
        normalizer = {"type": "Precompiled", "precompiled_charsmap": charsmap}
        yield with_key(refusal, f"has the charsmap {shorten(charsmap)}", "normalizer", normalizer)
    for normalizers in WRONG_SEQUENCES:
        normalizer = {"type": "Sequence", "normalizers": normalizers}
        yield with_key(refusal, f"has the normalizers {shorten(normalizers)}", "normalizer", normalizer)
    for key in REPLACED:
        for value in (3, {"type": "evil"}):
            yield with_key(acceptance, f"{key} = {value}, which is replaced", key, value)

    what = "has more tokens than the model has embeddings"
    yield with_key(refusal, what, "added_tokens", [*ADDED, *MORE_TOKENS], error_names=CONFIG)
    yield with_model("has more pieces than the model has embeddings", vocab=[*VOCAB, *MORE_PIECES], error_names=CONFIG)
    without_type = {key: value for key, value in STORED["model"].items() if key != "type"}
    yield with_key(acceptance, "has a model without a type", "model", without_type)
    nested = STORED["normalizer"]
    for _ in range(300):
        nested = {"type": "Sequence", "normalizers": [nested]}
    yield with_key(acceptance, "has a normalizer deep inside others", "normalizer", nested)


def with_key(outcome, what, key, value, **options):
    return outcome("safetensors", TOKENIZER, what, damage.set_keys, {key: value}, **options)


def with_model(what, error_names=TOKENIZER, **changes):
    return with_key(refusal, what, "model", {**STORED["model"], **changes}, error_names=error_names)
