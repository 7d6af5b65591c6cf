"""InstructorModel: the golden vectors for every storage format and batch size, and the arguments of `encode`."""

import json
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import STORED_AS, copy_tiny, edit_json, write_checkpoint
from processes import run_python
from vectors import TOLERANCE, assert_close

from spark_instructor import known_models
from spark_instructor.encoder import InstructorModel, linear, prepare, t5
from spark_instructor.encoder import model as model_module
from spark_instructor.models.prepared import PRECISIONS

TOLERANCE_OF = {"float32": TOLERANCE, "bfloat16": 0.03, "int8": 0.03}
"""The largest difference that another kernel may make to an element of a vector."""


def encode_cases(model, cases, **settings):
    return model.encode_counted([case["instruction"] for case in cases], [case["text"] for case in cases], **settings)


class TestGoldens:
    @pytest.mark.parametrize("batch_size", [1, 32, None])
    def test_vectors_and_counts(self, tiny_model, cases, golden_vectors, batch_size):
        encoded = encode_cases(tiny_model, cases, batch_size=batch_size)
        assert encoded.vectors.dtype == np.float32
        assert_close(encoded.vectors, golden_vectors)
        assert encoded.tokens.tolist() == [case["n_tokens"] for case in cases]

    def test_shuffled(self, tiny_model, cases, golden_vectors):
        order = np.random.default_rng(0).permutation(len(cases))
        assert_close(encode_cases(tiny_model, [cases[i] for i in order]).vectors, golden_vectors[order])

    def test_one_instruction_for_all(self, tiny_model, cases, golden_vectors):
        """One instruction for all texts, the usual call; the other tests pass one instruction per text."""
        indices = [i for i, case in enumerate(cases) if case["instruction"] == "Represent the Science title: "]
        assert len(indices) > 10
        vectors = tiny_model.encode("Represent the Science title: ", [cases[i]["text"] for i in indices])
        assert_close(vectors, golden_vectors[indices])

    def test_unknown_tokens(self, tiny_model):
        texts = ["你好 the 世界", "the to", "你好 the 世界", "the to of 世界"]
        encoded = tiny_model.encode_counted(["", "", "", "你: "], texts)
        assert encoded.unknown.tolist() == [2, 0, 2, 2]  # those of the instruction are read, too
        assert tiny_model.encode_counted("", ["the to of 世界"], max_length=4).unknown.tolist() == [0]  # not read
        long_text = "the " * tiny_model.max_length + "世界"
        assert tiny_model.encode_counted("", [long_text], long_text="average").unknown.tolist() == [1]

    def test_truncated_flags(self, tiny_model, cases):
        """The flag is set if the full text has more tokens than were read."""
        truncated = encode_cases(tiny_model, cases).truncated
        flagged = {case["id"] for case, cut in zip(cases, truncated, strict=True) if cut}
        assert flagged == {"len513", "len2000", "english-long", "instr509", "instr511", "instr600"}

    @pytest.mark.parametrize("tokens", [1, 100, 100_000])
    def test_cut_for_the_cache(self, monkeypatch, processor, tiny, cases, golden_vectors, tokens):
        """The vectors do not depend on the number of tokens per batch or of batches per step."""
        monkeypatch.setattr(model_module, "_CPU_BATCH_TOKENS", tokens)
        monkeypatch.setattr(model_module, "_CPU_BATCHES_IN_STEP", 3)
        monkeypatch.setattr(model_module, "_AMX_BATCHES_IN_STEP", 4)
        assert_close(encode_cases(InstructorModel.from_pretrained(tiny), cases).vectors, golden_vectors)

    @pytest.mark.parametrize("precision", ["bfloat16", "int8"])
    @pytest.mark.parametrize("batch_size", [1, None])
    def test_narrow_precisions(self, processor, tiny, cases, golden_vectors, batch_size, precision):
        vectors = encode_cases(
            InstructorModel.from_pretrained(tiny, precision=precision), cases, batch_size=batch_size
        ).vectors
        assert vectors.dtype == np.float32
        nonzero = golden_vectors.any(axis=1)
        assert not vectors[~nonzero].any()
        assert (vectors * golden_vectors).sum(axis=1)[nonzero].min() >= 0.999
        np.testing.assert_allclose(np.linalg.norm(vectors[nonzero], axis=1), 1, atol=1e-6)

    @pytest.mark.parametrize("stored_as", STORED_AS)
    @pytest.mark.parametrize("without", [(), ("tokenizer.json",), ("spiece.model",)], ids=["both", "spiece", "json"])
    def test_as_stored(self, tmp_path, cases, golden_vectors, stored_as, without):
        checkpoint = copy_tiny(tmp_path / "copy", stored_as=stored_as, without=without)
        model = InstructorModel.load(prepare(checkpoint, into=tmp_path / "prepared"))
        encoded = encode_cases(model, cases)
        assert_close(encoded.vectors, golden_vectors)
        assert encoded.tokens.tolist() == [case["n_tokens"] for case in cases]

    @pytest.mark.parametrize("private", [True, False], ids=["onednn", "public"])
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_either_matrix_product(self, monkeypatch, tiny, cases, golden_vectors, precision, private):
        """If torch lacks the private operators, the public ones give the same vectors."""
        if private and not all([linear._QUANTIZED, *linear._POINTWISE.values()]):
            pytest.skip("this torch or this processor lacks one of the private operators")
        monkeypatch.setattr(linear, "_POINTWISE", dict.fromkeys(linear._POINTWISE, private))
        monkeypatch.setattr(linear, "_QUANTIZED", private)
        vectors = encode_cases(InstructorModel.from_pretrained(tiny, precision=precision), cases).vectors
        np.testing.assert_allclose(vectors, golden_vectors, atol=TOLERANCE_OF[precision], rtol=0)

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_packed_for_good(self, monkeypatch, tiny, cases, precision):
        """Packed weights give the same vectors, and nothing is packed again for a call."""
        model = InstructorModel.from_pretrained(tiny, precision=precision)
        expected = encode_cases(model, cases).vectors
        model.pack()
        monkeypatch.setattr(t5, "_MIN_TOKENS_TO_PACK", 1)
        monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
        np.testing.assert_allclose(encode_cases(model, cases).vectors, expected, atol=TOLERANCE_OF[precision], rtol=0)


class TestMemoryOfGPU:
    """A GPU without enough memory, which the CPU plays here."""

    @pytest.fixture
    def fits(self, monkeypatch):
        """Return a function that sets how many tokens fit, and a list of the tokens of each batch that did."""
        computed = []

        def limit(tokens_that_fit):
            mean_pool = t5.T5Encoder.mean_pool

            def mean_pool_if_it_fits(self, batches):
                tokens = sum(len(sequence) for batch in batches for sequence in batch.sequences)
                if tokens > tokens_that_fit:
                    raise torch.OutOfMemoryError(f"CUDA out of memory: {tokens} tokens")
                computed.append(tokens)
                return mean_pool(self, batches)

            monkeypatch.setattr(t5.T5Encoder, "mean_pool", mean_pool_if_it_fits)
            return computed

        monkeypatch.setattr(model_module, "_CPU_BATCHES_IN_STEP", 1)
        monkeypatch.setattr(model_module, "_AMX_BATCHES_IN_STEP", 1)
        monkeypatch.setattr(model_module, "_CPU_BATCH_TOKENS", 100_000)
        return limit

    def test_batches_are_halved(self, fits, tiny, cases, golden_vectors, caplog):
        model = InstructorModel.from_pretrained(tiny)
        computed = fits(2_000)
        assert_close(encode_cases(model, cases).vectors, golden_vectors)
        assert sum(computed) == sum(
            case["n_tokens"] for case in {(c["instruction"], c["text"]): c for c in cases}.values()
        )
        assert "does not fit into the memory of cpu" in caplog.text
        encode_cases(model, cases)
        caplog.clear()
        assert_close(encode_cases(model, cases).vectors, golden_vectors)
        assert not caplog.text  # the model remembers how many tokens fit

    def test_a_single_text_that_does_not_fit_is_an_error(self, fits, tiny, cases):
        model = InstructorModel.from_pretrained(tiny)
        fits(100)
        with pytest.raises(torch.OutOfMemoryError):
            encode_cases(model, cases)


class TestArguments:
    def test_no_texts(self, tiny_model):
        encoded = tiny_model.encode_counted("Represent: ", [])
        assert encoded.vectors.shape == (0, tiny_model.dimension)
        assert encoded.tokens.shape == encoded.truncated.shape == encoded.unknown.shape == (0,)

    @pytest.mark.parametrize("instruction", [None, "", [None, ""]])
    def test_null_instruction_is_empty(self, tiny_model, instruction):
        texts = ["one text", "another"]
        assert_close(tiny_model.encode(instruction, texts), tiny_model.encode(["", ""], texts))

    def test_any_sequence(self, tiny_model):
        """A pandas Series is read by position; its index is ignored."""
        texts = ["one", "two words", "three words here"]
        expected = tiny_model.encode("query: ", texts)
        assert_close(tiny_model.encode("query: ", pd.Series(texts, index=[7, 0, 1])), expected)
        assert_close(tiny_model.encode(np.array(["query: "] * 3), np.array(texts)), expected)

    def test_not_normalized(self, tiny_model):
        texts = ["the capital of France", ""]
        raw = tiny_model.encode("", texts, normalize=False)
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        assert (np.abs(norms - 1) > 1e-3).all()
        assert_close(raw / norms, tiny_model.encode("", texts))

    def test_max_length(self, tiny_model):
        """A lower limit reads only the first tokens and `</s>`, and flags the text as truncated."""
        encoded = tiny_model.encode_counted("", ["the to and of", "the to and"], max_length=4)
        assert encoded.tokens.tolist() == [4, 4]
        assert encoded.truncated.tolist() == [True, False]
        assert_close(encoded.vectors[0], encoded.vectors[1])

    @pytest.mark.parametrize(
        ("texts", "settings", "error", "says"),
        [
            ("a str", {}, TypeError, "list of texts"),
            (["a", None], {}, TypeError, "text 1 is a NoneType"),
            (["a"], {"instruction": ["x", "y"]}, ValueError, "2 instructions for 1 texts"),
            (["a"], {"max_length": 513}, ValueError, "expected from 2 to 512"),
            (["a"], {"max_length": 1}, ValueError, "expected from 2 to 512"),
            (["a"], {"batch_size": 0}, ValueError, "at least 1"),
            (["a"], {"long_text": "split"}, ValueError, "truncate, average"),
        ],
    )
    def test_refused(self, tiny_model, texts, settings, error, says):
        with pytest.raises(error, match=says):
            tiny_model.encode(settings.pop("instruction", ""), texts, **settings)

    def test_dimension_and_max_length(self, tmp_path):
        checkpoint = write_checkpoint(tmp_path / "model", dimension=11, max_length=64)
        model = InstructorModel.from_pretrained(checkpoint)
        assert (model.dimension, model.max_length) == (11, 64)
        encoded = model.encode_counted("", ["the " * 200])
        assert encoded.vectors.shape == (1, 11)
        assert encoded.tokens.tolist() == [64]

    @pytest.mark.parametrize(
        ("of_model", "of_tokenizer", "limit"), [(64, 77, 64), (None, 77, 77), (None, 10**30, 512), (None, None, 512)]
    )
    def test_whose_max_length(self, tmp_path, of_model, of_tokenizer, limit):
        checkpoint = write_checkpoint(tmp_path / "model")
        edit_json(checkpoint / "sentence_bert_config.json", max_seq_length=of_model)
        edit_json(checkpoint / "tokenizer_config.json", model_max_length=of_tokenizer)
        assert InstructorModel.from_pretrained(checkpoint).max_length == limit


class TestFromPretrained:
    def test_known_name(self):
        (packaged,) = (known for known in known_models() if known.source == "packaged")
        model = InstructorModel.from_pretrained(packaged.name)
        assert (model.prepared.name, model.dimension) == (packaged.name, packaged.dimension)

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_folder(self, tiny, cases, precision):
        """`from_pretrained` takes a checkpoint as a path or a str, and the folder that was prepared from it."""
        prepared = prepare(tiny, precision)
        expected = encode_cases(InstructorModel.load(prepared), cases[:5]).vectors
        for folder in (tiny, str(tiny), prepared):
            model = InstructorModel.from_pretrained(folder, precision=precision)
            assert model.prepared.path == prepared
            assert_close(encode_cases(model, cases[:5]).vectors, expected)

    def test_default_precision(self, tiny):
        assert InstructorModel.from_pretrained(tiny).prepared.precision == "float32"

    def test_revision_is_asked_of_the_hub(self, monkeypatch, tiny):
        downloads = []
        monkeypatch.setattr("spark_instructor.models.registry._download", lambda *args: downloads.append(args) or tiny)
        assert InstructorModel.from_pretrained("owner/model", "v1").dimension == 64
        assert InstructorModel.from_pretrained("instructor_base").dimension == 64
        assert downloads == [("owner/model", "v1", None), ("hkunlp/instructor-base", None, None)]

    def test_pickle(self, tiny_model):
        copy = pickle.loads(pickle.dumps(tiny_model))
        assert_close(copy.encode("", ["a text"]), tiny_model.encode("", ["a text"]))

    def test_device(self, tiny):
        with pytest.raises(RuntimeError, match="nowhere"):
            InstructorModel.from_pretrained(tiny, device="nowhere")

    @pytest.mark.parametrize(
        ("name", "settings", "error", "says"),
        [
            ("instructor_huge", {}, ValueError, "unknown model 'instructor_huge': expected one of instructor_tiny"),
            ("./nowhere", {}, FileNotFoundError, "there is no checkpoint folder nowhere"),
            ("instructor_tiny", {"precision": "float16"}, ValueError, "unknown precision 'float16'"),
        ],
    )
    def test_refused(self, name, settings, error, says):
        with pytest.raises(error, match=says):
            InstructorModel.from_pretrained(name, **settings)

    def test_narrower_folder(self, tiny):
        """A folder that was prepared in int8 keeps its precision and cannot be loaded in float32."""
        folder = prepare(tiny, "int8")
        assert InstructorModel.from_pretrained(folder).prepared.precision == "int8"
        with pytest.raises(ValueError, match="was prepared in int8; float32 cannot be recovered"):
            InstructorModel.from_pretrained(folder, precision="float32")


def test_loading_imports_no_transformers(tiny, tmp_path):
    code = """
import json, sys
from spark_instructor.encoder import InstructorModel
InstructorModel.load(sys.argv[1]).encode("query: ", ["a text"])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    modules = json.loads(run_python("-c", code, prepare(tiny), cwd=tmp_path))
    assert "torch" in modules
    assert not {"transformers", "sentence_transformers", "sentencepiece", "huggingface_hub", "pyspark"} & set(modules)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_are_mapped_not_copied(tmp_path, precision):
    """Loading maps the weights, so the workers of a host share their memory; `encode` does not copy them either."""
    checkpoint = write_checkpoint(tmp_path / "model", d_model=512, d_ff=2048, num_heads=8, d_kv=64, num_layers=6)
    prepared = prepare(checkpoint, precision)
    code = """
import json, re, sys
from spark_instructor.encoder import InstructorModel

def anonymous_kb():
    with open("/proc/self/smaps_rollup") as file:
        return int(re.search(r"Anonymous: +(\\d+)", file.read())[1])

prepared, tiny = sys.argv[1:]
InstructorModel.load(tiny).encode("", ["warm up"])
before = anonymous_kb()
model = InstructorModel.load(prepared)
loaded = anonymous_kb()
model.encode("", ["the capital of France"])
print(json.dumps({"loaded": loaded - before, "used": anonymous_kb() - before}))
"""
    warm_up = prepare(write_checkpoint(tmp_path / "tiny"), precision)
    growth = json.loads(run_python("-c", code, prepared, warm_up, cwd=tmp_path))
    weights_kb = (prepared / "model.safetensors").stat().st_size / 1024
    assert weights_kb > 35_000
    assert growth["loaded"] < weights_kb / 5
    assert growth["used"] < weights_kb / 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads ru_maxrss in kilobytes")
def test_long_texts_are_tokenized_a_few_at_a_time(tiny, tmp_path):
    """A tokenizer's Encoding takes about 40 times the memory of its text: 12 MB of texts must not take 500 MB."""
    code = """
import json, resource, sys
from spark_instructor.encoder import InstructorModel

def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

model = InstructorModel.load(sys.argv[1])
text = "the capital of France is Paris. " * 1500
model.encode("", [text], max_length=8)
before = peak_kb()
tokens = model.encode_counted("", [text] * 250, max_length=8).tokens
print(json.dumps({"grown": peak_kb() - before, "tokens": tokens.tolist()}))
"""
    result = json.loads(run_python("-c", code, prepare(tiny), cwd=tmp_path))
    assert result["tokens"] == [8] * 250
    assert result["grown"] < 150_000


def test_what_repeats_is_embedded_once(tiny, monkeypatch):
    model = InstructorModel.from_pretrained(tiny)
    instructions = ["Represent: ", "Classify: ", "Represent: ", None, "", "Represent: "]
    texts = ["one text", "one text", "another", "one text", "one text", "one text"]
    alone = [model.encode_counted(i, [t]) for i, t in zip(instructions, texts, strict=True)]

    sequences = []
    mean_pool = model._encoder.mean_pool

    def record_sequences(batches):
        sequences.extend(sequence for batch in batches for sequence in batch.sequences)
        return mean_pool(batches)

    monkeypatch.setattr(model._encoder, "mean_pool", record_sequences)
    together = model.encode_counted(instructions, texts)
    assert len(sequences) == 4
    for result, vector, tokens in zip(alone, together.vectors, together.tokens, strict=True):
        np.testing.assert_allclose(vector, result.vectors[0], atol=TOLERANCE)
        assert tokens == result.tokens[0]


ENCODE_AFTER_A_FORK = """
import os, signal, sys
import numpy as np
import torch
from spark_instructor import InstructorModel

torch.set_num_threads(2)
model = InstructorModel.from_pretrained(sys.argv[1], precision=sys.argv[2])
texts = ["a text of some words " * 20] * 7 + ["another text"]
expected = model.encode("Represent the text: ", texts)
child = os.fork()
if child == 0:
    signal.alarm(100)  # kills the child if it hangs
    encoded = model.encode("Represent the text: ", texts)
    os._exit(0 if np.allclose(encoded, expected, atol=1e-3) and torch.get_num_threads() == 1 else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
"""


@pytest.mark.parametrize("precision", PRECISIONS)
def test_after_a_fork(tiny, tmp_path, precision):
    """A child of a process that has encoded texts encodes them, too; OpenMP's threads exist only in the parent."""
    run_python("-c", ENCODE_AFTER_A_FORK, tiny, precision, cwd=tmp_path)
