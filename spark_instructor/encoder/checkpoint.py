"""Reading a checkpoint in the hub's layout: what it is, and its tensors, checked against its config.json."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..prepared import Architecture, file_hash

DEFAULT_MAX_LENGTH = 512  # T5's own, where the checkpoint does not say
_NO_LIMIT = 10**9  # transformers writes 10**30 for a tokenizer without a limit
_LIMITS = (
    ("sentence_bert_config.json", "max_seq_length"),
    ("tokenizer_config.json", "model_max_length"),  # where sentence-transformers 6 writes it
)
_LAYOUTS = [["Transformer", "Pooling", *rest] for rest in ([], ["Dense"], ["Normalize"], ["Dense", "Normalize"])]
_SUPPORTED = "Supported are T5 encoders with relu feed-forward: INSTRUCTOR, GTR-T5 and Sentence-T5."

ReadTensor = Callable[[str], Tensor]


class Checkpoint:
    """A folder in the layout of sentence-transformers: config.json, weights, modules.json, 2_Dense.

    Raises FileNotFoundError where the folder or a file is missing, and ValueError, naming the file, where
    one is damaged or describes a model that the encoder does not compute.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no checkpoint folder {folder}")
        self.folder = folder
        self._files: list[Path] = []
        self._modules = self._read_modules()
        self._encoder_folder = self._module_folder("Transformer") or folder
        config = self._read_json(self._encoder_folder / "config.json")
        self._check_supported(config)
        self._open_weights()
        self.architecture = self._read_architecture(config)
        self.max_length = self._read_max_length()
        self.tokenizer_json = self._optional(self._encoder_folder / "tokenizer.json")
        self.spiece_model = self._optional(self._encoder_folder / "spiece.model")
        if self.tokenizer_json is None and self.spiece_model is None:
            raise FileNotFoundError(f"{folder} has neither tokenizer.json nor spiece.model")

    def content_hash(self) -> str:
        """SHA-256 over the names and contents of all files that decide the vectors."""
        digest = hashlib.sha256()
        for path in sorted(set(self._files)):
            digest.update(f"{path.relative_to(self.folder)}\0{file_hash(path)}\n".encode())
        return digest.hexdigest()

    def encoder_tensor(self, name: str, *expected: int) -> Tensor:
        """A tensor of the T5 encoder in float32; ValueError where its shape is not the expected one."""
        return self._checked(self._encoder_tensors, name, expected)

    def embedding(self) -> Tensor:
        """The token embeddings (vocab_size, d_model), under whichever of its two names they are stored."""
        stored = self._encoder_tensors
        name = "shared.weight" if "shared.weight" in stored else "encoder.embed_tokens.weight"
        return self._checked(stored, name, (self.architecture.vocab_size, self.architecture.d_model))

    def dense(self) -> Tensor | None:
        """The Dense layer (dimension, d_model) in float32; None where modules.json names none."""
        if self._dense_tensors is None:
            return None
        return self._checked(
            self._dense_tensors, "linear.weight", (self.architecture.dimension, self.architecture.d_model)
        )

    def _checked(self, tensors: _Tensors, name: str, expected: tuple[int, ...]) -> Tensor:
        tensor = tensors.read(name)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"{tensors.source}: tensor {name} has the shape {tuple(tensor.shape)}, but "
                f"{self._encoder_folder / 'config.json'} asks for {expected}"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{tensors.source}: tensor {name} holds {tensor.dtype}, expected floating point")
        return tensor.float()

    def _read_modules(self) -> list[Mapping[str, Any]]:
        path = self.folder / "modules.json"
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder} has no modules.json: it is not a sentence-transformers checkpoint")
        modules = self._read_json(path, list)
        kinds = [
            str(module.get("type", "")).rsplit(".", 1)[-1] if isinstance(module, dict) else "" for module in modules
        ]
        if kinds not in _LAYOUTS:
            raise ValueError(
                f"{path} lists the modules {kinds}; expected Transformer, Pooling, then Dense and Normalize. "
                f"{_SUPPORTED}"
            )
        return [{**module, "kind": kind} for module, kind in zip(modules, kinds, strict=True)]

    def _module_folder(self, kind: str) -> Path | None:
        """The folder of the module of this kind, which must lie inside the checkpoint."""
        module = next((module for module in self._modules if module["kind"] == kind), None)
        if module is None:
            return None
        relative = Path(str(module.get("path", "")))
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"{self.folder / 'modules.json'}: the path '{relative}' leads out of the checkpoint")
        return self.folder / relative

    def _check_supported(self, config: Mapping[str, Any]) -> None:
        path = self._encoder_folder / "config.json"
        if config.get("model_type") != "t5":
            raise ValueError(f"{path}: the architecture {config.get('model_type')!r} is not supported. {_SUPPORTED}")
        if config.get("feed_forward_proj", "relu") != "relu":
            raise ValueError(f"{path}: the feed-forward {config['feed_forward_proj']!r} is not supported. {_SUPPORTED}")
        settings = self._encoder_folder / "sentence_bert_config.json"
        if settings.is_file() and self._read_json(settings).get("do_lower_case"):
            raise ValueError(f"{settings}: do_lower_case is not supported; lower-case the texts yourself")

        pooling_folder = self._module_folder("Pooling")
        assert pooling_folder is not None  # _read_modules requires it
        pooling = self._read_json(pooling_folder / "config.json")
        legacy = [name for name, value in pooling.items() if name.startswith("pooling_mode_") and value is True]
        if pooling.get("pooling_mode", "mean") not in ("mean", ["mean"]) or legacy not in (
            [],
            ["pooling_mode_mean_tokens"],
        ):
            raise ValueError(f"{pooling_folder / 'config.json'}: only mean pooling is supported. {_SUPPORTED}")

    def _read_architecture(self, config: Mapping[str, Any]) -> Architecture:
        path = self._encoder_folder / "config.json"

        def number(name: str, default: int | None = None) -> int:
            value = config.get(name, default)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{path}: {name} is {value!r}, expected a positive whole number")
            return value

        epsilon = config.get("layer_norm_epsilon", 1e-6)
        if not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise ValueError(f"{path}: layer_norm_epsilon is {epsilon!r}, expected a small positive number")
        shape = {name: number(name) for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")}
        return Architecture(
            **shape,
            relative_attention_num_buckets=number("relative_attention_num_buckets", 32),
            relative_attention_max_distance=number("relative_attention_max_distance", 128),
            layer_norm_epsilon=epsilon,
            dimension=self._read_dimension(shape["d_model"]),
        )

    def _read_dimension(self, d_model: int) -> int:
        """The vectors' width: what the Dense layer puts out, as 1_Pooling's own figure is not reliable."""
        folder = self._module_folder("Dense")
        if folder is None:
            return d_model
        path = folder / "config.json"
        config = self._read_json(path)
        if config.get("bias") or not str(config.get("activation_function", "")).endswith("Identity"):
            raise ValueError(f"{path}: a Dense layer with a bias or an activation is not supported. {_SUPPORTED}")
        dimension = config.get("out_features")
        if not isinstance(dimension, int) or dimension < 1:
            raise ValueError(f"{path}: out_features is {dimension!r}, expected a positive whole number")
        return dimension

    def _read_max_length(self) -> int:
        for file, key in _LIMITS:
            path = self._encoder_folder / file
            value = self._read_json(path).get(key) if path.is_file() else None
            if value is None:
                continue
            if not isinstance(value, int) or value < 2:
                raise ValueError(f"{path}: {key} is {value!r}, expected a whole number of at least 2")
            if value < _NO_LIMIT:
                return value
        return DEFAULT_MAX_LENGTH

    def _open_weights(self) -> None:
        self._encoder_tensors = _open_tensors(self._encoder_folder)
        dense_folder = self._module_folder("Dense")
        self._dense_tensors = None if dense_folder is None else _open_tensors(dense_folder)
        for tensors in (self._encoder_tensors, self._dense_tensors):
            self._files += [] if tensors is None else tensors.files

    def _read_json(self, path: Path, kind: type = dict) -> Any:
        self._files.append(path)
        return _read_json(path, kind)

    def _optional(self, path: Path) -> Path | None:
        if not path.is_file():
            return None
        self._files.append(path)
        return path


class _Tensors:
    """The tensors of one module, each read when it is asked for."""

    def __init__(self, source: Path, files: list[Path], readers: Mapping[str, ReadTensor]) -> None:
        self.source, self.files, self._readers = source, files, readers

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def read(self, name: str) -> Tensor:
        if name not in self._readers:
            raise ValueError(f"{self.source} has no tensor {name}: the weights do not belong to its config.json")
        return self._readers[name](name)


def _open_tensors(folder: Path) -> _Tensors:
    """The weights in a folder: safetensors, sharded safetensors, or else a pickle without code."""
    single, index, pickled = (
        folder / name for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    )
    if single.is_file():
        return _Tensors(single, [single], _open_safetensors(single))
    if index.is_file():
        return _open_shards(index)
    if pickled.is_file():
        tensors = _load_pickle(pickled)
        return _Tensors(pickled, [pickled], dict.fromkeys(tensors, tensors.__getitem__))
    raise FileNotFoundError(f"{folder} has no weights: expected model.safetensors or pytorch_model.bin")


def _open_shards(index: Path) -> _Tensors:
    weight_map = _read_json(index, dict).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no weight_map")
    opened: dict[str, Mapping[str, ReadTensor]] = {}
    for shard in weight_map.values():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ValueError(f"{index} names the shard {shard!r}, expected a safetensors file beside it")
        if shard not in opened:
            if not (index.parent / shard).is_file():
                raise FileNotFoundError(f"{index} names the shard {shard}, which is not there")
            opened[shard] = _open_safetensors(index.parent / shard)
    missing = [name for name, shard in weight_map.items() if name not in opened[shard]]
    if missing:
        raise ValueError(f"{index.parent / weight_map[missing[0]]} has no tensor {missing[0]}, against {index.name}")
    readers = {name: opened[shard][name] for name, shard in weight_map.items()}
    return _Tensors(index, [index, *(index.parent / shard for shard in opened)], readers)


def _open_safetensors(path: Path) -> Mapping[str, ReadTensor]:
    try:
        file = safe_open(str(path), framework="pt")
        return dict.fromkeys(file.keys(), file.get_tensor)  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}). Download it again.") from error


def _load_pickle(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a .bin file; ``weights_only`` refuses a pickle that would run code."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused, and nothing in it was run: it holds more than tensors, or it is damaged "
            f"({str(error).splitlines()[0]}). Use a checkpoint in safetensors."
        ) from error
    except Exception as error:  # torch and its unpickler raise many kinds over damaged files
        raise ValueError(f"{path} is not a whole weight file ({error}). Download it again.") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} does not hold a state dict: expected tensors by name")
    return tensors


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"the checkpoint lacks {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not json: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a {kind.__name__}")
    return content
