"""Checkpoints that cannot be used are refused with an error that names the file and the fault."""

import json
import os
import pickle
import shutil

import pytest
import torch
from checkpoints import edit_json, random_tensors, write_checkpoint, write_json, write_weights

from spark_instructor.encoder import InstructorModel, prepare
from spark_instructor.models.prepared import read_prepared

BLOCK = "encoder.block.1.layer"
PREFIX = "sentence_transformers.models."
TRUNCATION = {"max_length": 5, "strategy": "LongestFirst", "stride": 0}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Write a valid checkpoint for each way to store weights; the tests damage copies of them."""
    root = tmp_path_factory.mktemp("whole")
    return {kind: write_checkpoint(root / kind, stored_as=kind) for kind in ("safetensors", "sharded", "bin")}


@pytest.fixture
def checkpoint(originals, tmp_path):
    return shutil.copytree(originals["safetensors"], tmp_path / "checkpoint")


def assert_refused(checkpoint, into, error, says):
    with pytest.raises(error, match=says) as raised:
        prepare(checkpoint, into=into)
    assert str(checkpoint) in str(raised.value)
    assert not into.exists()


def tensors_of(checkpoint):
    return random_tensors(json.loads((checkpoint / "config.json").read_text("utf-8")), 24)[0]


def modules(*kinds, **paths):
    return [{"type": PREFIX + kind, "path": paths.get(kind, {"Pooling": "1_Pooling"}.get(kind, ""))} for kind in kinds]


def remove(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


def edit(name, **changes):
    return lambda folder: edit_json(folder / name, **changes)


def write(name, content):
    return lambda folder: write_json(folder / name, content)


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


MISSING = {
    "weights": (remove("model.safetensors"), "has no weights: expected model.safetensors or pytorch_model.bin"),
    "Dense weights": (remove("2_Dense/model.safetensors"), "2_Dense has no weights"),
    "config": (remove("config.json"), "lacks .*config.json"),
    "pooling config": (remove("1_Pooling/config.json"), "lacks .*1_Pooling/config.json"),
    "Dense config": (remove("2_Dense/config.json"), "lacks .*2_Dense/config.json"),
    "modules": (remove("modules.json"), "has no modules.json"),
    "tokenizer": (remove("tokenizer.json", "spiece.model"), "has neither tokenizer.json nor spiece.model"),
}


@pytest.mark.parametrize(("change", "says"), MISSING.values(), ids=MISSING)
def test_missing_file(checkpoint, tmp_path, change, says):
    change(checkpoint)
    assert_refused(checkpoint, tmp_path / "prepared", FileNotFoundError, says)


def test_missing_folder(tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path / "prepared", FileNotFoundError, "there is no checkpoint folder")


def test_an_onnx_export(tmp_path):
    """Spark NLP reads such a folder, which has no Dense layer."""
    (tmp_path / "export/assets").mkdir(parents=True)
    (tmp_path / "export/model.onnx").write_bytes(b"")
    says = "export is an ONNX export, as Spark NLP loads it, without the Dense layer. Pass the checkpoint"
    assert_refused(tmp_path / "export", tmp_path / "prepared", ValueError, says)


UNSUPPORTED = {
    "architecture": (edit("config.json", model_type="bert"), r"config\.json: the architecture 'bert'.*Supported are"),
    "no architecture": (edit("config.json", model_type=None), "the architecture None"),
    "gated": (edit("config.json", feed_forward_proj="gated-gelu"), r"feed-forward 'gated-gelu'.*Supported are"),
    "lower-casing": (edit("sentence_bert_config.json", do_lower_case=True), "do_lower_case is not supported"),
    "cls pooling": (
        edit("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True),
        "only mean pooling",
    ),
    "two poolings": (edit("1_Pooling/config.json", pooling_mode_max_tokens=True), "only mean pooling"),
    "cls pooling, newly spelt": (write("1_Pooling/config.json", {"pooling_mode": "cls"}), "only mean pooling"),
    "Dense with bias": (edit("2_Dense/config.json", bias=True), "bias or an activation"),
    "Dense with tanh": (edit("2_Dense/config.json", activation_function="torch.nn.Tanh"), "bias or an activation"),
    "Dense with residual": (edit("2_Dense/config.json", use_residual=True), "use_residual is not supported"),
    "Dense of tokens": (
        edit("2_Dense/config.json", module_input_name="token_embeddings"),
        "a module_input_name is not supported",
    ),
    "Dense into another": (
        edit("2_Dense/config.json", module_output_name="x"),
        "a module_output_name is not supported",
    ),
    "the beginning is cut": (
        edit("tokenizer_config.json", truncation_side="left"),
        "truncation_side 'left' is not supported",
    ),
    "the beginning is cut, by tokenizer.json": (
        edit("tokenizer.json", truncation={**TRUNCATION, "direction": "Left"}),
        r"tokenizer\.json.* truncation has the direction 'Left'",
    ),
    "other processing": (
        edit("sentence_bert_config.json", processing_kwargs={"text": {"max_length": 5}}),
        r"sentence_bert_config\.json: processing_kwargs is {'text': {'max_length': 5}}, but the encoder does not",
    ),
    "another tokenizer": (
        edit("sentence_bert_config.json", tokenizer_args={"model_max_length": 5}),
        "tokenizer_args is {'model_max_length': 5}, but the encoder does not support it",
    ),
    "INSTRUCTOR or not": (
        edit("1_Pooling/config.json", include_prompt=None),
        r"has no include_prompt, and .* has no README\.md that says whether this is an INSTRUCTOR model",
    ),
    "a default prompt without a text": (
        write("config_sentence_transformers.json", {"default_prompt_name": "d", "prompts": {"query": "Query: "}}),
        "default_prompt_name is 'd', but prompts has no text of this name",
    ),
    "another token": (
        write("added_tokens.json", {"<extra_id_0>": 1023, "[MED]": 1020}),
        r"added_tokens\.json adds the token '<extra_id_0>' with the id '1023', which the tokenizer lacks",
    ),
    "a token that is an ordinary piece": (write("added_tokens.json", {"▁": 3}), "adds the token '▁' with the id '3'"),
    "another token, newly spelt": (
        edit("tokenizer_config.json", added_tokens_decoder={"1": {"content": "</s>"}, "1020": {"content": "[MED]"}}),
        r"tokenizer_config\.json adds the token '\[MED\]' with the id '1020'",
    ),
    "another special token": (
        edit("tokenizer_config.json", additional_special_tokens=["<extra_id_0>", {"content": "[MED]"}]),
        r"tokenizer_config\.json adds the token '\[MED\]', which the tokenizer lacks",
    ),
    "another special token by name": (
        edit("tokenizer_config.json", extra_special_tokens={"med": "[MED]"}),
        r"adds the token '\[MED\]', which the tokenizer lacks",
    ),
    "a mask token": (edit("tokenizer_config.json", mask_token="[MASK]"), r"adds the token '\[MASK\]', which"),
    "special tokens that are split": (
        edit("tokenizer_config.json", split_special_tokens=True),
        "split_special_tokens is not supported",
    ),
    "two Dense": (
        write("modules.json", modules("Transformer", "Pooling", "Dense", "Dense")),
        r"lists the modules \['Transformer', 'Pooling', 'Dense', 'Dense'\]",
    ),
    "no pooling": (write("modules.json", modules("Transformer", "Normalize")), "lists the modules"),
    "no modules": (write("modules.json", []), "lists the modules"),
    "CLIP": (write("modules.json", modules("CLIPModel")), "lists the modules"),
}


@pytest.mark.parametrize(("change", "says"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_model(checkpoint, tmp_path, change, says):
    change(checkpoint)
    assert_refused(checkpoint, tmp_path / "prepared", ValueError, says)


DAMAGED_JSON = {
    "cut": (text("config.json", '{"model_type": '), r"config\.json is not valid JSON"),
    "empty": (text("modules.json", ""), r"modules\.json is not valid JSON"),
    "list for object": (write("config.json", []), r"config\.json holds a list, expected a dict"),
    "object for list": (write("modules.json", {}), r"modules\.json holds a dict, expected a list"),
    "null": (write("sentence_bert_config.json", None), "holds a NoneType, expected a dict"),
    "modules of str": (write("modules.json", ["Transformer", "Pooling"]), "lists the modules"),
    "one module of str": (write("modules.json", [*modules("Transformer", "Pooling"), "Dense"]), "lists the modules"),
    "width of str": (edit("config.json", d_model="32"), "d_model is '32', expected a positive whole number"),
    "no layers": (edit("config.json", num_layers=0), "num_layers is 0"),
    "no heads": (edit("config.json", num_heads=None), "num_heads is None"),
    "flag for number": (edit("config.json", d_kv=True), "d_kv is True"),
    "epsilon": (edit("config.json", layer_norm_epsilon="small"), "layer_norm_epsilon is 'small'"),
    "limit": (edit("sentence_bert_config.json", max_seq_length=1), "max_seq_length is 1"),
    "limit of str": (edit("sentence_bert_config.json", max_seq_length="512"), "max_seq_length is '512'"),
    "dimension": (edit("2_Dense/config.json", out_features=0), "out_features is 0"),
    "tokenizer": (write("tokenizer.json", []), "not a readable T5 tokenizer"),
    "added tokens": (edit("tokenizer_config.json", added_tokens_decoder={"1020": "[MED]"}), "expected an object whose"),
    "a list of added tokens": (
        edit("tokenizer_config.json", added_tokens_decoder=[]),
        r"decoder is \[\], expected an object that maps",
    ),
    "an added token's id": (
        write("added_tokens.json", {"</s>": "1"}),
        "of '</s>' has type str, expected a whole",
    ),
}


@pytest.mark.parametrize(("change", "says"), DAMAGED_JSON.values(), ids=DAMAGED_JSON)
def test_damaged_json(checkpoint, tmp_path, change, says):
    change(checkpoint)
    assert_refused(checkpoint, tmp_path / "prepared", ValueError, says)


def test_json_in_another_encoding(checkpoint, tmp_path):
    (checkpoint / "config.json").write_bytes(b"\xff\xfe{\x00}\x00")
    assert_refused(checkpoint, tmp_path / "prepared", ValueError, r"config\.json is not valid JSON")


@pytest.mark.parametrize("path", ["../other/2_Dense", "/2_Dense", "2_Dense/../../other/2_Dense", "{other}/2_Dense"])
def test_module_outside_the_checkpoint(originals, checkpoint, tmp_path, path):
    """A path that leads out of the checkpoint is refused, even if there is a valid Dense layer at its end."""
    other = shutil.copytree(originals["safetensors"], tmp_path / "other")
    listed = modules("Transformer", "Pooling", "Dense", Dense=path.format(other=other))
    write_json(checkpoint / "modules.json", listed)
    assert_refused(checkpoint, tmp_path / "prepared", ValueError, "leads out of the checkpoint")


class TestShapes:
    """Weights whose shapes do not match config.json."""

    @pytest.mark.parametrize(
        ("changes", "tensor"),
        [
            ({"d_model": 40}, "shared.weight"),
            ({"vocab_size": 2000}, "shared.weight"),
            ({"d_ff": 64}, "DenseReluDense.wi.weight"),
            ({"d_kv": 16}, "SelfAttention.q.weight"),
            ({"num_heads": 6, "d_kv": 4}, "relative_attention_bias.weight"),
            ({"relative_attention_num_buckets": 16}, "relative_attention_bias.weight"),
            ({"num_layers": 3}, r"has no tensor encoder.block.2.layer.0"),
        ],
        ids=str,
    )
    def test_other_config(self, checkpoint, tmp_path, changes, tensor):
        edit_json(checkpoint / "config.json", **changes)
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, rf"model\.safetensors.*{tensor}.*config\.json")

    def test_other_dense(self, checkpoint, tmp_path):
        edit_json(checkpoint / "2_Dense" / "config.json", out_features=25)
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, r"2_Dense.*\(24, 32\).*\(25, 32\)")

    def test_two_embeddings(self, checkpoint, tmp_path):
        tensors = tensors_of(checkpoint)
        same = {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"].clone()}
        write_weights(checkpoint, same)
        prepare(checkpoint)
        write_weights(checkpoint, {**same, "encoder.embed_tokens.weight": tensors["shared.weight"] * 2})
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, "shared.weight and encoder.embed.* differ")

    def test_tokenizer_with_more_tokens_than_embeddings(self, checkpoint, tmp_path):
        edit_json(checkpoint / "config.json", vocab_size=900)
        tensors = tensors_of(checkpoint)
        write_weights(checkpoint, tensors)
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, "the tokenizer needs .* config.json says 900")

    @pytest.mark.parametrize("stored_as", ["safetensors", "bin"])
    @pytest.mark.parametrize(
        "name",
        [
            f"{BLOCK}.0.SelfAttention.k.weight",
            f"{BLOCK}.1.layer_norm.weight",
            "encoder.final_layer_norm.weight",
            "shared.weight",
        ],
    )
    def test_missing_tensor(self, checkpoint, tmp_path, stored_as, name):
        tensors = tensors_of(checkpoint)
        del tensors[name]
        write_weights(checkpoint, tensors, stored_as)
        pattern = "embed_tokens" if name == "shared.weight" else name
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, f"has no tensor .*{pattern}")

    def test_numbers_that_torch_lacks(self, checkpoint, tmp_path, monkeypatch):
        """The header of a file newer than torch may name a dtype that safetensors knows and torch does not."""
        write_weights(checkpoint, tensors_of(checkpoint), dtype=torch.float8_e5m2)
        monkeypatch.delattr(torch, "float8_e5m2")
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, "cannot hold tensor .*float8_e5m2")

    def test_whole_numbers(self, checkpoint, tmp_path):
        write_weights(checkpoint, tensors_of(checkpoint), dtype=torch.int8)
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, r"holds torch\.int8, expected floating point")


class TestDamagedWeights:
    @pytest.mark.parametrize("kept", [0, 4, 9, 100, 0.3, 0.999])
    @pytest.mark.parametrize("stored_as", ["safetensors", "sharded", "bin"])
    def test_cut(self, originals, tmp_path, stored_as, kept):
        """Weights are truncated at various points, as by a download that was interrupted."""
        checkpoint = shutil.copytree(originals[stored_as], tmp_path / "checkpoint")
        name = {"sharded": "model-00002-of-00002.safetensors", "bin": "pytorch_model.bin"}.get(
            stored_as, "model.safetensors"
        )
        weights = checkpoint / name
        os.truncate(weights, int(kept * weights.stat().st_size) if kept < 1 else kept)
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, rf"{name} (is not a complete|was refused)")

    @pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", b"PK"])
    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    def test_something_else(self, checkpoint, tmp_path, name, content):
        """The file of the weights contains a web page, a git-lfs pointer or a damaged zip file."""
        (checkpoint / "model.safetensors").unlink()
        (checkpoint / name).write_bytes(content * 5)
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, rf"{name} (is not a complete|was refused)")

    @pytest.mark.parametrize("content", [[torch.ones(2)], {"shared.weight": 1.0}, torch.ones(3)], ids=type)
    def test_not_a_state_dict(self, checkpoint, tmp_path, content):
        (checkpoint / "model.safetensors").unlink()
        torch.save(content, checkpoint / "pytorch_model.bin")
        assert_refused(checkpoint, tmp_path / "prepared", ValueError, "does not hold a state dict")


class _RunsCode:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("of", ["", "2_Dense"], ids=["encoder", "Dense"])
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "bare pickle"])
def test_pickle_that_would_run_code(checkpoint, tmp_path, as_zip, of):
    """The pickle is refused and its code does not run, although pickle itself would run it."""
    mark = tmp_path / "mark"
    (checkpoint / of / "model.safetensors").unlink()
    weights = checkpoint / of / "pytorch_model.bin"
    if as_zip:
        torch.save({"shared.weight": _RunsCode(mark)}, weights)
    else:
        weights.write_bytes(pickle.dumps({"shared.weight": _RunsCode(mark)}, protocol=2))
    assert_refused(checkpoint, tmp_path / "prepared", ValueError, r"pytorch_model\.bin was refused.* safetensors")
    assert not mark.exists()

    pickle.loads(pickle.dumps(_RunsCode(mark)))
    assert mark.exists()


class TestShardIndex:
    @pytest.fixture
    def sharded(self, originals, tmp_path):
        return shutil.copytree(originals["sharded"], tmp_path / "checkpoint")

    @pytest.mark.parametrize(
        "shard",
        ["../other/model.safetensors", "/model.safetensors", "pytorch_model.bin", "sub/model.safetensors", 3, None, []],
        ids=repr,
    )
    def test_names_something_else(self, originals, sharded, tmp_path, shard):
        shutil.copytree(originals["safetensors"], tmp_path / "other")
        edit_json(sharded / "model.safetensors.index.json", weight_map={"shared.weight": shard})
        assert_refused(sharded, tmp_path / "prepared", ValueError, r"expected a \.safetensors file in the same folder")

    def test_missing_shard(self, sharded, tmp_path):
        (sharded / "model-00002-of-00002.safetensors").unlink()
        assert_refused(sharded, tmp_path / "prepared", FileNotFoundError, "names the shard model-00002-of-00002")

    def test_tensor_in_another_shard(self, sharded, tmp_path):
        index = sharded / "model.safetensors.index.json"
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        weight_map["shared.weight"] = "model-00002-of-00002.safetensors"
        edit_json(index, weight_map=weight_map)
        assert_refused(sharded, tmp_path / "prepared", ValueError, r"00002\.safetensors has no tensor shared\.weight")

    @pytest.mark.parametrize("weight_map", [None, [], "model.safetensors"], ids=repr)
    def test_no_map(self, sharded, tmp_path, weight_map):
        edit_json(sharded / "model.safetensors.index.json", weight_map=weight_map)
        assert_refused(sharded, tmp_path / "prepared", ValueError, "has no weight_map")


@pytest.mark.parametrize("without", ["tokenizer.json", "spiece.model"])
def test_added_tokens_that_the_tokenizer_has(checkpoint, without):
    """Both files that can list added tokens are accepted with the tokens that T5's slow tokenizer writes."""
    (checkpoint / without).unlink()
    token_ids = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"<extra_id_{i}>": 999 - i for i in range(100)}}
    write_json(checkpoint / "added_tokens.json", token_ids)
    by_id = {str(number): {"content": token, "special": True} for token, number in token_ids.items()}
    edit_json(checkpoint / "tokenizer_config.json", added_tokens_decoder=by_id, truncation_side="right")
    prepare(checkpoint)


@pytest.mark.parametrize("without", ["sentence_bert_config.json", "tokenizer.json", "spiece.model"])
def test_what_may_be_missing(checkpoint, without):
    """These files are optional, and so is the folder 3_Normalize, although modules.json names it."""
    (checkpoint / without).unlink()
    assert not (checkpoint / "3_Normalize").exists()
    assert InstructorModel.from_pretrained(checkpoint).encode("", ["a text"]).any()


OF_THE_LIBRARY = {
    "1.0.1": ["InstructorEmbedding.instructor"] * 2,
    "1.0.1, by class": ["InstructorEmbedding.instructor.INSTRUCTOR_Transformer", "instructor.INSTRUCTOR_Pooling"],
    "its repository": ["InstructorEmbedding.INSTRUCTORTransformer", "InstructorEmbedding.INSTRUCTORPooling"],
}


@pytest.mark.parametrize("types", OF_THE_LIBRARY.values(), ids=OF_THE_LIBRARY)
def test_saved_by_instructors_own_library(checkpoint, types):
    """It names the modules and the folder of Pooling in its own way, and writes no include_prompt."""
    expected = InstructorModel.from_pretrained(checkpoint).encode("Represent the text: ", ["a text"])
    edit_json(checkpoint / "1_Pooling" / "config.json", include_prompt=None)
    (checkpoint / "1_Pooling").rename(checkpoint / "1_INSTRUCTOR_Pooling")
    listed = modules("Transformer", "Pooling", "Dense", "Normalize", Pooling="1_INSTRUCTOR_Pooling", Dense="2_Dense")
    for module, own_type in zip(listed[:2], types, strict=True):
        module["type"] = own_type
    write_json(checkpoint / "modules.json", listed)
    assert (InstructorModel.from_pretrained(checkpoint).encode("Represent the text: ", ["a text"]) == expected).all()


SAYS_INSTRUCTOR = {
    "the card of the hub": text("README.md", "# hkunlp/instructor-base\nWe introduce **Instructor**"),
    "the card of a fine-tuned model": text("README.md", "---\nbase_model: hkunlp/instructor-large\n---"),
    "its name": text("README.md", "Trained like INSTRUCTOR"),
    "config.json": edit("config.json", _name_or_path="models/my-instructor"),
}
SAYS_ANOTHER = {
    "nothing": text("README.md", "# A model"),
    "a text of the training data": text("README.md", "| The yoga instructor counts. | An instructor speaks. |"),
    "GTR-T5": text("README.md", "# sentence-transformers/gtr-t5-base"),
}


@pytest.mark.parametrize("include_prompt", [None, True])
@pytest.mark.parametrize(
    ("change", "is_instructor"),
    [(change, True) for change in SAYS_INSTRUCTOR.values()] + [(change, False) for change in SAYS_ANOTHER.values()],
    ids=[*SAYS_INSTRUCTOR, *SAYS_ANOTHER],
)
def test_instructor_or_not(checkpoint, tmp_path, change, is_instructor, include_prompt):
    """INSTRUCTOR leaves the instruction out of the mean, whatever its files say about it; others follow them."""
    edit_json(checkpoint / "1_Pooling" / "config.json", include_prompt=include_prompt)
    change(checkpoint)
    assert read_prepared(prepare(checkpoint)).include_prompt != is_instructor
    edit_json(checkpoint / "1_Pooling" / "config.json", include_prompt=False)
    assert not read_prepared(prepare(checkpoint)).include_prompt


def test_settings_survive_another_precision(checkpoint):
    edit_json(checkpoint / "1_Pooling" / "config.json", include_prompt=True)
    prompts = {"prompts": {"d": "Document: "}, "default_prompt_name": "d", "truncate_dim": 5}
    plain = read_prepared(prepare(checkpoint))
    write_json(checkpoint / "config_sentence_transformers.json", prompts)
    first = read_prepared(prepare(checkpoint))
    again = read_prepared(prepare(first.path, "bfloat16"))
    assert (again.include_prompt, again.default_prompt, again.dimension) == (True, "Document: ", 5)
    assert len({plain.content_hash, first.content_hash, again.content_hash}) == 3
