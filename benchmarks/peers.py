"""The engines to compare. Each turns an instruction and texts into unit vectors in its own process.

Each engine imports what it needs itself, so its process loads no other engine, and no engine has to be installed.
"""

import hashlib
import importlib.util
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from common import cpu_flags
from inputs import Model, TextSet, text_set

from spark_instructor.models.prepared import PRECISIONS
from spark_instructor.models.publishing import publish_folder

Vectors = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.int64]

TOKEN_BUDGETS = (256, 512, 1024, 2048)
_BATCHES_TIMED = 8  # per budget, to find the best
_CALIBRATION_TEXTS = 100  # per set, for static quantization


class Engine(ABC):
    """One way to embed texts in one precision."""

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that it needs besides sentence-transformers."""

    @classmethod
    def missing(cls) -> list[str]:
        """Return its packages that are not installed."""
        return [name for name in cls.packages if importlib.util.find_spec(name) is None]

    @classmethod
    def build(cls, model: Model, precision: str) -> Path:
        """Return the folder that the engine loads, and create it if it does not exist."""
        return model.path

    @abstractmethod
    def __init__(self, model: Model, precision: str) -> None:
        """Load the model."""

    def tune(self, texts: TextSet) -> int | None:
        """Return the tokens per batch with which it is fastest on these texts; None if it is used with its defaults."""
        return None

    @abstractmethod
    def encode(self, texts: TextSet, token_budget: int | None) -> Vectors:
        """Return unit vectors (texts, dimension) in the order of the texts."""


class SparkInstructor(Engine):
    """Our encoder without Spark, with its defaults."""

    name = "spark_instructor"
    precisions = PRECISIONS

    @classmethod
    def build(cls, model: Model, precision: str) -> Path:
        from spark_instructor.encoder import prepare

        return prepare(model.path, precision)

    def __init__(self, model: Model, precision: str) -> None:
        from spark_instructor.encoder import InstructorModel

        self._model = InstructorModel.load(self.build(model, precision))

    def encode(self, texts: TextSet, token_budget: int | None) -> Vectors:
        return self._model.encode(texts.instruction, texts.texts)


class SentenceTransformers(Engine):
    """The baseline with its defaults: it sorts by length and takes 32 texts per batch."""

    name = "sentence-transformers"
    precisions = ("float32",)

    def __init__(self, model: Model, precision: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(model.path), device="cpu")
        self._model.set_pooling_include_prompt(False)

    def encode(self, texts: TextSet, token_budget: int | None) -> Vectors:
        return self._model.encode(texts.texts, prompt=texts.instruction)


class Padded(Engine):
    """An engine that takes padded batches: texts sorted by length, with as many tokens per batch as are fastest."""

    def __init__(self, model: Model, precision: str) -> None:
        self._tokenize = _tokenizer(model)

    @abstractmethod
    def _run(self, input_ids: Matrix, attention_mask: Matrix, pooled_mask: Matrix) -> Vectors:
        """Return unit vectors (batch, dimension) for ids and masks of 0 and 1 (batch, length)."""

    def tune(self, texts: TextSet) -> int:
        ids, instruction_tokens = self._tokenize(texts)
        seconds_a_token = {}
        for budget in TOKEN_BUDGETS:
            batches = list(_batches(ids, budget))
            taken = batches[:: max(len(batches) // _BATCHES_TIMED, 1)]
            for _ in range(2):  # the first run is for warming up
                start = time.perf_counter()
                for batch in taken:
                    self._run(*_pad([ids[i] for i in batch], instruction_tokens))
                seconds = time.perf_counter() - start
            seconds_a_token[budget] = seconds / sum(len(ids[i]) for batch in taken for i in batch)
        return min(TOKEN_BUDGETS, key=seconds_a_token.__getitem__)

    def encode(self, texts: TextSet, token_budget: int | None) -> Vectors:
        ids, instruction_tokens = self._tokenize(texts)
        batches = list(_batches(ids, token_budget or TOKEN_BUDGETS[0]))
        by_length = np.concatenate([self._run(*_pad([ids[i] for i in batch], instruction_tokens)) for batch in batches])
        vectors = np.empty_like(by_length)
        vectors[np.concatenate(batches)] = by_length
        return vectors


class Transformers(Padded):
    """transformers' T5 with the faster of torch's kernels; int8 by torch's dynamic quantization."""

    name = "transformers, tuned"
    precisions = ("float32", "bfloat16", "int8")

    def __init__(self, model: Model, precision: str) -> None:
        super().__init__(model, precision)
        import torch
        from embedder import Embedder

        # The public way to oneDNN's products instead of MKL's. It is true float32 if the processor has no AMX.
        if "amx_bf16" not in cpu_flags():
            torch.set_float32_matmul_precision("medium")
        self._torch = torch
        self._embedder: Any = Embedder(model)
        if precision == "bfloat16":
            self._embedder.to_bfloat16()
        if precision == "int8":
            self._quantize_linears()

    def _quantize_linears(self) -> None:
        from torch.ao.nn.quantized import dynamic
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

        torch = self._torch

        class Linear(dynamic.Linear):
            """torch's default uses 7 of the 8 bits of activations, which are too few for a cosine of 0.999."""

            def forward(self, x: Any) -> Any:
                return torch.ops.quantized.linear_dynamic(x, self._packed_params._packed_params)

        linears = {torch.nn.Linear: per_channel_dynamic_qconfig}
        quantize_dynamic(self._embedder, linears, mapping={torch.nn.Linear: Linear}, inplace=True)

    def _run(self, input_ids: Matrix, attention_mask: Matrix, pooled_mask: Matrix) -> Vectors:
        with self._torch.inference_mode():
            inputs = map(self._torch.from_numpy, (input_ids, attention_mask, pooled_mask))
            return self._embedder(*inputs).float().numpy()


class OnnxRuntime(Padded):
    """ONNX Runtime; int8 by its dynamic quantization, with one scale per column of the weights."""

    name = "ONNX Runtime"
    precisions = ("float32", "int8")
    packages = ("onnxruntime", "onnx")

    @classmethod
    def build(cls, model: Model, precision: str) -> Path:
        exported = _made_once(model, f"onnx-{version('onnx')}", cls._export)
        if precision == "float32":
            return exported
        return _made_once(model, f"onnxruntime-{version('onnxruntime')}-int8", cls._quantize, exported)

    @staticmethod
    def _export(folder: Path, model: Model) -> None:
        import torch
        from embedder import INPUTS, Embedder, example

        torch.onnx.export(
            Embedder(model),
            example(),
            folder / "model.onnx",
            input_names=INPUTS,
            output_names=["vectors"],
            dynamic_axes={**{name: {0: "batch", 1: "length"} for name in INPUTS}, "vectors": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )

    @staticmethod
    def _quantize(folder: Path, model: Model, exported: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            exported / "model.onnx",
            folder / "model.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},  # the products of the attention have too wide a range
        )

    def __init__(self, model: Model, precision: str) -> None:
        super().__init__(model, precision)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = self.build(model, precision) / "model.onnx"
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def _run(self, input_ids: Matrix, attention_mask: Matrix, pooled_mask: Matrix) -> Vectors:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "pooled_mask": pooled_mask}
        return self._session.run(None, inputs)[0]


class CTranslate2(Padded):
    """CTranslate2's T5 encoder, which packs its batches itself; int8 with one scale per row and token."""

    name = "CTranslate2"
    precisions = ("float32", "int8")
    packages = ("ctranslate2",)

    @classmethod
    def build(cls, model: Model, precision: str) -> Path:
        return _made_once(model, f"ctranslate2-{version('ctranslate2')}", cls._convert)

    @staticmethod
    def _convert(folder: Path, model: Model) -> None:
        """Its converter expects T5 with a decoder, so only the part for the encoder is called."""
        import torch
        from ctranslate2.converters.transformers import T5Loader
        from ctranslate2.specs import common_spec, transformer_spec
        from embedder import Embedder

        embedder = Embedder(model)
        config = embedder.encoder.config
        encoder = transformer_spec.TransformerEncoderSpec(
            config.num_layers,
            config.num_heads,
            pre_norm=True,
            activation=common_spec.Activation.RELU,
            relative_attention_bias=True,
            rms_norm=True,
        )
        with torch.no_grad():
            T5Loader().set_stack(encoder, embedder.encoder.encoder)
        spec = transformer_spec.TransformerEncoderModelSpec(encoder)
        spec.config.layer_norm_epsilon = config.layer_norm_epsilon
        spec.register_vocabulary([str(i) for i in range(config.vocab_size)])  # not used: it receives ids
        spec.validate()
        spec.save(str(folder))
        np.save(folder / "dense.npy", embedder.dense.weight.detach().numpy())

    def __init__(self, model: Model, precision: str) -> None:
        super().__init__(model, precision)
        if "avx512f" in cpu_flags():
            os.environ["CT2_FORCE_CPU_ISA"] = "AVX512"  # the default only on Intel's processors
        import ctranslate2

        folder = self.build(model, precision)
        self._as_input = ctranslate2.StorageView.from_array
        self._encoder = ctranslate2.Encoder(str(folder), compute_type=precision, inter_threads=1, intra_threads=1)
        self._dense = np.load(folder / "dense.npy")

    def _run(self, input_ids: Matrix, attention_mask: Matrix, pooled_mask: Matrix) -> Vectors:
        lengths = attention_mask.sum(1, dtype=np.int32)
        output = self._encoder.forward_batch(self._as_input(input_ids.astype(np.int32)), self._as_input(lengths))
        counted = pooled_mask[:, None].astype(np.float32)
        mean = (counted @ np.array(output.last_hidden_state))[:, 0] / np.maximum(counted.sum(2), 1e-9)
        vectors = mean @ self._dense.T
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class OpenVino(Padded):
    """OpenVINO; int8 by NNCF's quantization for transformers, calibrated on texts, with the rest in bfloat16."""

    name = "OpenVINO"
    precisions = ("float32", "bfloat16", "int8")
    packages = ("openvino", "nncf")

    @classmethod
    def build(cls, model: Model, precision: str) -> Path:
        converted = _made_once(model, f"openvino-{version('openvino')}", cls._convert)
        if precision != "int8":
            return converted
        name = f"{cls.__name__}-{version('openvino')}-{version('nncf')}-int8"
        return _made_once(model, name, cls._quantize, converted)

    @staticmethod
    def _convert(folder: Path, model: Model) -> None:
        import openvino
        from embedder import INPUTS, Embedder, example

        inputs = [(name, [-1, -1], openvino.Type.i64) for name in INPUTS]
        converted = openvino.convert_model(Embedder(model), example_input=example(), input=inputs)
        openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)

    @staticmethod
    def _quantize(folder: Path, model: Model, converted: Path) -> None:
        import nncf
        import openvino
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        tokenize = _tokenizer(model)
        batches = []
        for name in ("texts", "queries"):
            texts = text_set(name, 10**6)
            ids, instruction_tokens = tokenize(texts._replace(texts=texts.texts[-_CALIBRATION_TEXTS:]))
            batches += [_pad([ids[i] for i in batch], instruction_tokens) for batch in _batches(ids, TOKEN_BUDGETS[0])]
        quantized = nncf.quantize(
            openvino.Core().read_model(converted / "model.xml"),
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # With its default settings, the lowest cosine of the questions' vectors is 0.997.
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=0.5),
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )
        openvino.save_model(quantized, folder / "model.xml", compress_to_fp16=False)

    def __init__(self, model: Model, precision: str) -> None:
        super().__init__(model, precision)
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
            **self._settings(model),
        }
        path = self.build(model, precision) / "model.xml"
        compiled = openvino.Core().compile_model(path, "CPU", settings)
        self._request, self._output = compiled.create_infer_request(), compiled.output(0)

    def _settings(self, model: Model) -> dict[str, Any]:
        return {}

    def _run(self, input_ids: Matrix, attention_mask: Matrix, pooled_mask: Matrix) -> Vectors:
        inputs = (input_ids, attention_mask, pooled_mask)
        return self._request.infer(inputs, share_inputs=True)[self._output].copy()


class OpenVinoDynamic(OpenVino):
    """OpenVINO; int8 in another way, with compressed weights and activations that are quantized at run time."""

    name = "OpenVINO, dynamic"
    precisions = ("int8",)

    @staticmethod
    def _quantize(folder: Path, model: Model, converted: Path) -> None:
        import nncf
        import openvino

        original = openvino.Core().read_model(converted / "model.xml")
        compressed = nncf.compress_weights(original, mode=nncf.CompressWeightsMode.INT8_SYM)
        openvino.save_model(compressed, folder / "model.xml", compress_to_fp16=False)

    def _settings(self, model: Model) -> dict[str, Any]:
        # Columns of activations per scale: the fastest value; smaller groups gain little accuracy.
        return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": model.config["d_model"]}


ENGINES: dict[str, type[Engine]] = {
    "spark_instructor": SparkInstructor,
    "sentence-transformers": SentenceTransformers,
    "transformers": Transformers,
    "onnxruntime": OnnxRuntime,
    "ctranslate2": CTranslate2,
    "openvino": OpenVino,
    "openvino-dynamic": OpenVinoDynamic,
}


_engine: Engine
"""The engine of this process; the functions below run in the process of an engine."""


def load(engine: type[Engine], model: Model, precision: str) -> None:
    """Load an engine into this process."""
    global _engine
    _engine = engine(model, precision)


def tune(texts: TextSet) -> int | None:
    """Call `Engine.tune` of this process's engine."""
    return _engine.tune(texts)


def encode(texts: TextSet, token_budget: int | None = None) -> Vectors:
    """Call `Engine.encode` of this process's engine."""
    return _engine.encode(texts, token_budget)


def seconds(texts: TextSet, token_budget: int | None = None) -> float:
    """Return the seconds that this process's engine takes from texts to vectors."""
    start = time.perf_counter()
    _engine.encode(texts, token_budget)
    return time.perf_counter() - start


def reference(model: Model, texts: TextSet) -> tuple[Matrix, npt.NDArray[np.float64]]:
    """Return the tokens per text (texts,), and the float64 vectors of the checked texts (checked, dimension).

    sentence-transformers computes them, each text alone and so without padding. They are stored with the model, as this
    takes minutes.
    """
    content = "\0".join([texts.instruction, *texts.texts])
    name = f"reference-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    with np.load(_made_once(model, name, _compute_reference, texts) / "arrays.npz") as arrays:
        return arrays["lengths"], arrays["vectors"]


def _compute_reference(folder: Path, model: Model, texts: TextSet) -> None:
    from sentence_transformers import SentenceTransformer

    oracle = SentenceTransformer(str(model.path), device="cpu", model_kwargs={"dtype": "float64"})
    oracle.set_pooling_include_prompt(False)
    vectors = oracle.encode(texts.checked().texts, prompt=texts.instruction, batch_size=1)
    ids, _ = _tokenizer(model)(texts)
    np.savez(folder / "arrays.npz", lengths=[len(of_text) for of_text in ids], vectors=vectors)


def _made_once(model: Model, name: str, make: Callable[..., None], *arguments: Any) -> Path:
    """Return the folder of this name beside the model; ``make`` fills it the first time."""
    folder = model.derived / name
    if not folder.is_dir():
        with publish_folder(folder) as new:
            make(new, model, *arguments)
    return folder


def _tokenizer(model: Model) -> Callable[[TextSet], tuple[list[list[int]], int]]:
    """Return a function that returns the ids of each text with its instruction, and the instruction's token count."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path)

    def tokenize(texts: TextSet) -> tuple[list[list[int]], int]:
        joined = [texts.instruction + text for text in texts.texts]
        ids = tokenizer(joined, truncation=True, max_length=model.max_length)["input_ids"]
        return ids, len(tokenizer(texts.instruction.strip())["input_ids"]) - 1

    return tokenize


def _batches(ids: list[list[int]], token_budget: int) -> Iterator[list[int]]:
    """Yield the indices of each batch: texts of similar length, at most this number of tokens including padding."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    start = 0
    while start < len(order):
        stop = start + max(token_budget // len(ids[order[start]]), 1)
        yield order[start:stop]
        start = stop


def _pad(ids: list[list[int]], instruction_tokens: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return the ids, the attention mask and the mask of the tokens in the mean, each (batch, max_length)."""
    lengths = np.array([len(of_text) for of_text in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    matrix = np.zeros(mask.shape, np.int64)
    matrix[mask] = np.concatenate(ids)
    return matrix, mask.astype(np.int64), (mask & (np.arange(mask.shape[1]) >= instruction_tokens)).astype(np.int64)
