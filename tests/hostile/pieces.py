"""spiece.model in a checkpoint without a tokenizer.json."""

from sentencepiece import sentencepiece_model_pb2 as protobuf

from .case import CONFIG, PIECES, refusal
from .tokenizer_json import NO_CHARSMAPS

# Settings of the trainer and their wrong values.
WRONG_SETTINGS = [
    ("model_type", [2, 3, 4]),
    ("unk_id", [-1, 900, 10**6, 2**31 - 1]),
]


def cases():
    for key, values in WRONG_SETTINGS:
        for value in values:
            yield refusal("slow", PIECES, f"{key} = {value}", edit, set_setting, key, value)
    for score in (float("nan"), float("inf")):
        yield refusal("slow", PIECES, f"has a score of {score}", edit, set_score, score)
    for number, charsmap in enumerate(NO_CHARSMAPS):
        yield refusal("slow", PIECES, f"has the wrong charsmap {number}", edit, set_charsmap, charsmap)
    yield refusal("slow", PIECES, "is cut between two pieces", edit, clear_fields, "trainer_spec", "normalizer_spec")
    yield refusal("slow", PIECES, "has no pieces", edit, clear_fields, "pieces")
    yield refusal("slow", PIECES, "has no </s>", edit, remove_piece, 1)
    what = "has more pieces than the model has embeddings"
    yield refusal("slow", PIECES, what, edit, add_pieces, 100, error_names=CONFIG)


def edit(path, change, *arguments):
    """Read the model, call `change(model, *arguments)` and write the model back."""
    model = protobuf.ModelProto()
    model.ParseFromString(path.read_bytes())
    change(model, *arguments)
    path.write_bytes(model.SerializeToString())


def set_setting(model, key, value):
    setattr(model.trainer_spec, key, value)


def set_score(model, score):
    model.pieces[9].score = score


def set_charsmap(model, charsmap):
    model.normalizer_spec.precompiled_charsmap = charsmap


def clear_fields(model, *fields):
    for field in fields:
        model.ClearField(field)


def remove_piece(model, number):
    del model.pieces[number]


def add_pieces(model, count):
    for number in range(count):
        model.pieces.add(piece=f"piece{number}", score=-20.0)
