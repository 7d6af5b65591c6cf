"""Compare the encoder with sentence-transformers on random checkpoints of many shapes."""

import json

import numpy as np
import pytest
import torch
from checkpoints import STORED_AS, TOKENIZER_FILES, edit_json, write_checkpoint, write_json
from vectors import TOLERANCE

from spark_instructor.encoder import InstructorModel, prepare

pytestmark = pytest.mark.oracle

INSTRUCTIONS = ["Represent the Science title: ", "", "the"]
SHAPES = {
    "small": {},
    "one head": {"num_heads": 1, "d_kv": 5, "d_model": 7, "d_ff": 3, "dimension": 2},
    "no Dense": {"dimension": None},
    "wide Dense": {"dimension": 100},
    "deep": {"num_layers": 9},
    "few buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
    "longer limit": {"max_length": 900},
    "shorter limit": {"max_length": 40},
    "large epsilon": {"layer_norm_epsilon": 0.1},
    "larger vocabulary": {"vocab_size": 1500},
}
BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "dimension": 768}
LARGE = {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 3, "num_heads": 16, "dimension": 768}
XL = {"d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 1, "num_heads": 32, "dimension": 768}


def oracle(checkpoint):
    """Load a checkpoint with sentence-transformers, which follows its settings."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    return sentence_transformers.SentenceTransformer(str(checkpoint), device="cpu")


def assert_as_oracle(peer, model, texts, instructions=INSTRUCTIONS):
    """Compare vectors; our model gets all instructions in one call, so its batches differ from those of the oracle."""
    expected = [
        peer.encode(texts, prompt=instruction, batch_size=4, normalize_embeddings=True) for instruction in instructions
    ]
    actual = model.encode(np.repeat(instructions, len(texts)).tolist(), texts * len(instructions))
    assert np.abs(actual).max() > 0.01
    np.testing.assert_allclose(actual, np.concatenate(expected), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_small_shapes(tmp_path, varied_texts, shape):
    checkpoint = write_checkpoint(tmp_path / "model", **shape)
    assert_as_oracle(oracle(checkpoint), InstructorModel.from_pretrained(checkpoint), varied_texts)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(BASE, id="base"),
        pytest.param(LARGE, id="large, 3 layers", marks=pytest.mark.exhaustive),
        pytest.param(XL, id="xl, 1 layer", marks=pytest.mark.exhaustive),
    ],
)
def test_real_dimensions(tmp_path, varied_texts, shape):
    checkpoint = write_checkpoint(tmp_path / "model", **shape)
    model = InstructorModel.load(prepare(checkpoint, into=tmp_path / "prepared"))
    assert model.dimension == 768
    assert_as_oracle(oracle(checkpoint), model, varied_texts[2:6], INSTRUCTIONS[:1])


def test_attention_is_far_from_uniform(tmp_path, varied_texts):
    """The other tests would prove little if, with the random weights, every token attended equally to all tokens."""
    t5 = oracle(write_checkpoint(tmp_path / "model"))[0]
    t5.auto_model.set_attn_implementation("eager")
    ids = t5.tokenizer(varied_texts[6], return_tensors="pt")
    with torch.inference_mode():
        weights = t5.auto_model(**ids, output_attentions=True).attentions
    assert ids["input_ids"].shape[1] > 100
    assert min(layer.amax(dim=-1).mean() for layer in weights) > 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stored_as", STORED_AS)
def test_half_precision_on_the_hub_is_widened(tmp_path, varied_texts, dtype, stored_as):
    checkpoint = write_checkpoint(
        tmp_path / "model", stored_as=stored_as, dtype=dtype, torch_dtype=str(dtype).removeprefix("torch.")
    )
    assert_as_oracle(oracle(checkpoint).float(), InstructorModel.from_pretrained(checkpoint), varied_texts[:6])


@pytest.mark.parametrize("dimension", [24, None])
def test_saved_by_sentence_transformers(tmp_path, varied_texts, dimension):
    """Current sentence-transformers saves a slightly different layout from the INSTRUCTOR checkpoints on the hub."""
    peer = oracle(write_checkpoint(tmp_path / "model", dimension=dimension, max_length=100))
    peer.save(str(tmp_path / "saved"))
    model = InstructorModel.from_pretrained(tmp_path / "saved")
    assert model.max_length == 100
    assert_as_oracle(peer, model, varied_texts)


def without_include_prompt(checkpoint):
    edit_json(checkpoint / "1_Pooling/config.json", include_prompt=None)
    (checkpoint / "README.md").write_text("# sentence-transformers/gtr-t5-base")


def set_pooling(**changes):
    return lambda checkpoint: edit_json(checkpoint / "1_Pooling/config.json", **changes)


def set_defaults(**settings):
    return lambda checkpoint: write_json(checkpoint / "config_sentence_transformers.json", settings)


PROMPTS = {"prompts": {"query": "Query: ", "document": "Represent the document: "}, "default_prompt_name": "document"}
HONORED = {
    "the prompt is pooled": set_pooling(include_prompt=True),
    "the prompt is pooled by default": without_include_prompt,
    "prompts": set_defaults(prompts=PROMPTS["prompts"]),
    "a default prompt": set_defaults(**PROMPTS),
    "an empty default prompt": set_defaults(prompts={"document": ""}, default_prompt_name="document"),
    "fewer numbers": set_defaults(truncate_dim=7),
    "no fewer numbers": set_defaults(truncate_dim=700),
}


@pytest.mark.parametrize("dimension", [24, None], ids=["Dense", "no Dense"])
@pytest.mark.parametrize("change", HONORED.values(), ids=HONORED)
def test_settings_that_are_honored(tmp_path, varied_texts, change, dimension):
    checkpoint = write_checkpoint(tmp_path / "model", dimension=dimension)
    change(checkpoint)
    peer, model = oracle(checkpoint), InstructorModel.from_pretrained(checkpoint)
    assert_as_oracle(peer, model, varied_texts)
    expected = peer.encode(varied_texts, normalize_embeddings=True)
    np.testing.assert_allclose(model.encode(None, varied_texts), expected, atol=TOLERANCE, rtol=0)


def cut_the_beginning(checkpoint):
    truncation = {"direction": "Left", "max_length": 512, "strategy": "LongestFirst", "stride": 0}
    edit_json(checkpoint / "tokenizer.json", truncation=truncation)


REFUSED = {
    "the beginning is cut": cut_the_beginning,
    "fewer tokens": lambda checkpoint: edit_json(
        checkpoint / "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 5}}
    ),
    "the tokenizer's limit": lambda checkpoint: edit_json(
        checkpoint / "sentence_bert_config.json", max_seq_length=None, tokenizer_args={"model_max_length": 5}
    ),
    "another special token": lambda checkpoint: edit_json(
        checkpoint / "tokenizer_config.json", extra_special_tokens=["[MED]"]
    ),
    "special tokens that are split": lambda checkpoint: edit_json(
        checkpoint / "tokenizer_config.json", split_special_tokens=True
    ),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_settings_that_are_refused(tmp_path, varied_texts, change):
    """They would change the vectors."""
    checkpoint = write_checkpoint(tmp_path / "model")
    texts = [*varied_texts, "a [MED] b </s> c"]
    plain = oracle(checkpoint).encode(texts)
    change(checkpoint)
    assert np.abs(oracle(checkpoint).encode(texts) - plain).max() > 0.01
    with pytest.raises(ValueError, match=r"can be cut off|does not support|is not supported|the tokenizer lacks"):
        prepare(checkpoint)


HARD_TEXTS = [
    "ﬁne ＡＢＣ ① ½ é",
    "one </s> two <pad> <extra_id_0>three",
    "next\u0085line\u2028  two  spaces",
    "",
    "漢字",
]
OTHER_NORMALIZERS = {
    "none": None,
    "an empty one": {"type": "Sequence", "normalizers": []},
    "another": {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
}


def test_slow_tokenizer_alone(tmp_path, varied_texts):
    files = [name for name in TOKENIZER_FILES if name != "tokenizer.json"]
    checkpoint = write_checkpoint(tmp_path / "model", tokenizer_files=files)
    assert_as_oracle(oracle(checkpoint), InstructorModel.from_pretrained(checkpoint), HARD_TEXTS + varied_texts[2:7])


@pytest.mark.parametrize("normalizer", OTHER_NORMALIZERS.values(), ids=OTHER_NORMALIZERS)
def test_tokenizer_json_without_a_character_map(tmp_path, normalizer):
    """The map of the spiece.model beside it is not used."""
    checkpoint = write_checkpoint(tmp_path / "model")
    content = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    write_json(checkpoint / "tokenizer.json", {**content, "normalizer": normalizer})
    assert_as_oracle(oracle(checkpoint), InstructorModel.from_pretrained(checkpoint), HARD_TEXTS)
