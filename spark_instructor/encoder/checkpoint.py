"""Reading a checkpoint in the hub's layout: its shape, its limits and its tensors by what they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..files import JsonObject, is_file, is_valid_name, read_json, report_unreadable, short_repr
from ..models.prepared import MAX_LENGTH, Architecture, hash_file
from .weights import open_weights

DEFAULT_MAX_LENGTH = 512  # T5's own, where the checkpoint does not say
_UNLIMITED = 10**9  # transformers writes 10**30 for a tokenizer without a limit
_MAX_LENGTH_KEYS = (
    ("sentence_bert_config.json", "max_seq_length"),
    ("tokenizer_config.json", "model_max_length"),  # where sentence-transformers 6 writes it
)
_LAYOUTS = [["Transformer", "Pooling", *rest] for rest in ([], ["Dense"], ["Normalize"], ["Dense", "Normalize"])]
_SUPPORTED = "Supported are T5 encoders with relu feed-forward: INSTRUCTOR, GTR-T5 and Sentence-T5."


class _Module(NamedTuple):
    """A line of modules.json."""

    kind: str
    folder: Path


class ListedToken(NamedTuple):
    """A token that a file beside the tokenizer's own adds to it."""

    path: Path
    content: str
    id: str


class Checkpoint:
    """A folder in the layout of sentence-transformers: config.json, weights, modules.json, 2_Dense.

    Raises FileNotFoundError where the folder or a file is missing, and ValueError, naming the file, where
    one is damaged or describes a model that the encoder does not compute.
    """

    def __init__(self, folder: Path) -> None:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"there is no checkpoint folder {folder}")
        self.folder = folder
        self._hashed_files: list[Path] = []
        self._modules = self._read_modules()
        self._encoder_folder = self._find_module_folder("Transformer") or folder
        config = self._read_object(self._encoder_folder / "config.json")
        self._check_supported(config)
        self._open_weights()
        self.architecture = self._read_architecture(config)
        self.max_length = self._read_max_length()
        self.added_tokens = self._read_added_tokens()
        self.tokenizer_json = self._find_file(self._encoder_folder / "tokenizer.json")
        self.spiece_model = self._find_file(self._encoder_folder / "spiece.model")
        if self.tokenizer_json is None and self.spiece_model is None:
            raise FileNotFoundError(f"{folder} has neither tokenizer.json nor spiece.model")

    def hash_content(self) -> str:
        """SHA-256 over the names and contents of all files that decide the vectors."""
        digest = hashlib.sha256()
        for path in sorted(set(self._hashed_files)):
            with report_unreadable(path):
                digest.update(f"{path.relative_to(self.folder)}\0{hash_file(path)}\n".encode())
        return digest.hexdigest()

    def read_encoder_tensor(self, name: str, *expected: int) -> Tensor:
        """A tensor of the T5 encoder in float32; ValueError where its shape is not the expected one."""
        return self._encoder_weights.read(name, expected)

    def read_embedding(self) -> Tensor:
        """The token embeddings (vocab_size, d_model), under whichever of its two names they are stored."""
        stored = self._encoder_weights
        expected = (self.architecture.vocab_size, self.architecture.d_model)
        names = [name for name in ("shared.weight", "encoder.embed_tokens.weight") if name in stored]
        embedding = stored.read(names[0] if names else "encoder.embed_tokens.weight", expected)
        if len(names) == 2 and not torch.equal(embedding, stored.read(names[1], expected)):
            raise ValueError(
                f"{stored.source}: {names[0]} and {names[1]} differ, and T5 has one embedding. {_SUPPORTED}"
            )
        return embedding

    def read_dense(self) -> Tensor | None:
        """The Dense layer (dimension, d_model) in float32; None where modules.json names none."""
        if self._dense_weights is None:
            return None
        if "linear.bias" in self._dense_weights:
            raise ValueError(
                f"{self._dense_weights.source} has a linear.bias, which its config.json denies. {_SUPPORTED}"
            )
        return self._dense_weights.read("linear.weight", (self.architecture.dimension, self.architecture.d_model))

    def _read_modules(self) -> list[_Module]:
        path = self.folder / "modules.json"
        if not is_file(path):
            raise FileNotFoundError(f"{self.folder} has no modules.json: it is not a sentence-transformers checkpoint")
        modules = self._read_json(path, list)
        objects = [JsonObject(path, module if isinstance(module, dict) else {}) for module in modules]
        # The type is a name to compare, never one to import.
        kinds = [_strip_package(module.get("type", str)) for module in objects]
        if kinds not in _LAYOUTS:
            raise ValueError(
                f"{path} lists the modules {short_repr(kinds)}; expected Transformer, Pooling, then Dense and "
                f"Normalize. {_SUPPORTED}"
            )
        return [_Module(kind, self._resolve_folder(module)) for kind, module in zip(kinds, objects, strict=True)]

    def _resolve_folder(self, module: JsonObject) -> Path:
        """The folder of a module, which must lie inside the checkpoint."""
        relative = module.get("path", str) or ""
        if Path(relative).is_absolute() or ".." in Path(relative).parts:
            raise ValueError(f"{module.path}: the path {short_repr(relative)} leads out of the checkpoint")
        if not is_valid_name(relative):
            raise ValueError(f"{module.path}: the path {short_repr(relative)} is not the name of a folder")
        return self.folder / relative

    def _find_module_folder(self, kind: str) -> Path | None:
        return next((module.folder for module in self._modules if module.kind == kind), None)

    def _check_supported(self, config: JsonObject) -> None:
        architecture = config.get("model_type", str)
        if architecture != "t5":
            raise ValueError(
                f"{config.path}: the architecture {short_repr(architecture)} is not supported. {_SUPPORTED}"
            )
        feed_forward = config.get("feed_forward_proj", str, "relu")
        if feed_forward != "relu":
            raise ValueError(
                f"{config.path}: the feed-forward {short_repr(feed_forward)} is not supported. {_SUPPORTED}"
            )
        settings = self._encoder_folder / "sentence_bert_config.json"
        if is_file(settings) and self._read_object(settings).get("do_lower_case", bool):
            raise ValueError(f"{settings}: do_lower_case is not supported; lower-case the texts yourself")
        settings = self._encoder_folder / "tokenizer_config.json"
        side = self._read_object(settings).get("truncation_side", str, "right") if is_file(settings) else "right"
        if side != "right":
            raise ValueError(
                f"{settings}: truncation_side {short_repr(side)} is not supported; a long text loses its end"
            )

        pooling_folder = self._find_module_folder("Pooling")
        assert pooling_folder is not None  # _read_modules requires it
        path = pooling_folder / "config.json"
        content = self._read_json(path)
        legacy = {"pooling_mode_mean_tokens": True, **JsonObject(path, content).get_flags("pooling_mode_")}
        chosen = [name for name, value in legacy.items() if value]
        if content.get("pooling_mode", "mean") not in ("mean", ["mean"]) or chosen != ["pooling_mode_mean_tokens"]:
            raise ValueError(f"{path}: only mean pooling is supported. {_SUPPORTED}")

    def _read_architecture(self, config: JsonObject) -> Architecture:
        epsilon = config.get("layer_norm_epsilon", float, 1e-6)
        if epsilon is None or not 0 < epsilon < 1:
            raise ValueError(f"{config.path}: layer_norm_epsilon is {epsilon!r}, expected a small positive number")
        names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
        shape = {name: config.get_whole_number(name) for name in names}
        # T5 halves the buckets twice, and the distances beyond a quarter of them share the rest.
        buckets = config.get_whole_number("relative_attention_num_buckets", 32, minimum=4)
        return Architecture(
            **shape,
            relative_attention_num_buckets=buckets,
            relative_attention_max_distance=config.get_whole_number(
                "relative_attention_max_distance", 128, minimum=buckets // 4 + 1
            ),
            layer_norm_epsilon=epsilon,
            dimension=self._read_dimension(shape["d_model"]),
        )

    def _read_dimension(self, d_model: int) -> int:
        """The vectors' width: what the Dense layer puts out, as 1_Pooling's own figure is not reliable."""
        folder = self._find_module_folder("Dense")
        if folder is None:
            return d_model
        config = self._read_object(folder / "config.json")
        if config.get("bias", bool, True) or _strip_package(config.get("activation_function", str)) != "Identity":
            raise ValueError(
                f"{config.path}: a Dense layer with a bias or an activation is not supported. {_SUPPORTED}"
            )
        for name in ("module_input_name", "module_output_name"):
            if config.get(name, str, "sentence_embedding") != "sentence_embedding":
                raise ValueError(f"{config.path}: a Dense layer with a {name} is not supported. {_SUPPORTED}")
        if config.get("use_residual", bool):
            raise ValueError(f"{config.path}: a Dense layer with use_residual is not supported. {_SUPPORTED}")
        return config.get_whole_number("out_features")

    def _read_max_length(self) -> int:
        for file, key in _MAX_LENGTH_KEYS:
            path = self._encoder_folder / file
            value = self._read_json(path).get(key) if is_file(path) else None
            if value is None or (type(value) is int and value >= _UNLIMITED):
                continue
            if type(value) is not int or not 2 <= value <= MAX_LENGTH:
                raise ValueError(
                    f"{path}: {key} is {short_repr(value)}, expected a whole number of at least 2 "
                    f"and at most {MAX_LENGTH}"
                )
            return value
        return DEFAULT_MAX_LENGTH

    def _read_added_tokens(self) -> list[ListedToken]:
        """The tokens that transformers adds to those of the tokenizer's own file, where they are not among them."""
        path = self._encoder_folder / "added_tokens.json"
        listed = []
        for token, number in self._read_json(path).items() if is_file(path) else ():
            if type(number) is not int:  # the value is not shown, as the file may be a link to some other one
                kind = type(number).__name__
                raise ValueError(
                    f"{path}: the id of {short_repr(token)} is of the kind {kind}, expected a whole number"
                )
            listed.append(ListedToken(path, token, str(number)))

        path = self._encoder_folder / "tokenizer_config.json"
        tokens = self._read_json(path).get("added_tokens_decoder") if is_file(path) else None
        tokens = {} if tokens is None else tokens
        if not isinstance(tokens, dict):
            raise ValueError(f"{path}: added_tokens_decoder is {short_repr(tokens)}, expected tokens by their ids")
        for number, token in tokens.items():
            content = token.get("content") if isinstance(token, dict) else None
            if not isinstance(content, str):
                raise ValueError(
                    f"{path}: added_tokens_decoder has {short_repr(token)} at {short_repr(number)}, expected an "
                    "object whose content is text"
                )
            listed.append(ListedToken(path, content, number))
        return listed

    def _open_weights(self) -> None:
        self._encoder_weights = open_weights(self._encoder_folder)
        dense_folder = self._find_module_folder("Dense")
        self._dense_weights = None if dense_folder is None else open_weights(dense_folder)
        for weights in (self._encoder_weights, self._dense_weights):
            self._hashed_files += [] if weights is None else weights.files

    def _read_json(self, path: Path, kind: type = dict) -> Any:
        self._hashed_files.append(path)
        return read_json(path, kind)

    def _read_object(self, path: Path) -> JsonObject:
        return JsonObject(path, self._read_json(path))

    def _find_file(self, path: Path) -> Path | None:
        if not is_file(path):
            return None
        self._hashed_files.append(path)
        return path


def _strip_package(dotted: str | None) -> str:
    return (dotted or "").rsplit(".", 1)[-1]
