"""Reading a checkpoint in the hub's layout: check that its model is supported, and find its tensors by their role."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..files import JsonObject, is_file, is_valid_name, read_bytes, read_json, report_unreadable, short_repr
from ..models.prepared import MAX_LENGTH, Architecture, hash_file
from ..models.registry import MODEL_CARD
from .weights import open_weights

logger = logging.getLogger(__name__)

_DEFAULT_MAX_LENGTH = 512  # T5's own limit, for checkpoints that give none
_UNLIMITED = 10**9  # for a tokenizer without a limit, transformers writes 10**30
_MAX_LENGTH_KEYS = (
    ("sentence_bert_config.json", "max_seq_length"),
    ("tokenizer_config.json", "model_max_length"),  # sentence-transformers 6 writes the limit here
)
_LAYOUTS = [["Transformer", "Pooling", *rest] for rest in ([], ["Dense"], ["Normalize"], ["Dense", "Normalize"])]
# The types of Transformer and Pooling that INSTRUCTOR's own library writes; version 1.0.1 writes its module twice.
_INSTRUCTOR_TYPES = [
    ["instructor", "instructor"],
    ["INSTRUCTOR_Transformer", "INSTRUCTOR_Pooling"],
    ["INSTRUCTORTransformer", "INSTRUCTORPooling"],
]
# Not any word "instructor": sentence-transformers writes texts of the training data into a model card.
_INSTRUCTOR_CARD = re.compile(r"\bINSTRUCTOR|\bhkunlp/instructor\b")
# Settings in sentence_bert_config.json that change the tokens. Its model_args only choose how the weights are loaded.
_TOKENIZER_SETTINGS = ("processing_kwargs", "processor_kwargs", "tokenizer_args", "config_kwargs", "config_args")
_SUPPORTED = "Supported are T5 encoders with relu feed-forward: INSTRUCTOR, GTR-T5 and Sentence-T5."
_LARGE_FILE = 1 << 28  # bytes; hashing takes long enough to be logged


class _Module(NamedTuple):
    """A module that modules.json lists."""

    kind: str
    folder: Path


class ListedToken(NamedTuple):
    """A token that must be in the tokenizer, according to a file beside the tokenizer's own."""

    path: Path
    content: str
    id: str | None
    """None if any id will do."""


class Checkpoint:
    """A checkpoint folder in the layout of sentence-transformers: config.json, weights, modules.json, 2_Dense.

    Raises FileNotFoundError if the folder or a file is missing, and ValueError, naming the file, if a file is damaged
    or describes a model that the encoder does not support.
    """

    def __init__(self, folder: Path) -> None:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"there is no checkpoint folder {folder}")
        self.folder = folder
        self._hashed_files: list[Path] = []
        self._is_of_instructor_library = False
        self._modules = self._read_modules()
        self.has_normalize = self._find_module_folder("Normalize") is not None
        """Whether there is a Normalize module, so that its own library only gives vectors of length 1."""
        self._encoder_folder = self._find_module_folder("Transformer") or folder
        config = self._read_object(self._encoder_folder / "config.json")
        self._check_transformer(config)
        pooling = self._read_pooling()
        self.include_prompt = self._read_include_prompt(pooling, config)
        """Whether the instruction's tokens are in the mean."""
        path = folder / "config_sentence_transformers.json"
        self._settings = JsonObject(path, self._read_optional_json(path))
        self.default_prompt = self._read_default_prompt()
        """The instruction for texts that have none; "" if they get none."""
        self._open_weights()
        self.architecture = self._read_architecture(config)
        self.max_length = self._read_max_length()
        self.added_tokens = self._read_added_tokens()
        self.tokenizer_json = self._find_file(self._encoder_folder / "tokenizer.json")
        self.spiece_model = self._find_file(self._encoder_folder / "spiece.model")
        if self.tokenizer_json is None and self.spiece_model is None:
            raise FileNotFoundError(f"{folder} has neither tokenizer.json nor spiece.model")

    def hash_content(self) -> str:
        """Compute the SHA-256 of the names and contents of all files that determine the vectors."""
        digest = hashlib.sha256()
        for path in sorted(set(self._hashed_files)):
            with report_unreadable(path):
                size = path.stat().st_size
                if size >= _LARGE_FILE:
                    logger.info("Hashing %s (%.1f GB)", path, size / 1e9)
                digest.update(f"{path.relative_to(self.folder)}\0{hash_file(path)}\n".encode())
        return digest.hexdigest()

    def read_encoder_tensor(self, name: str, *shape: int) -> Tensor:
        """Read a tensor of the T5 encoder in float32; see `Weights.read`."""
        return self._encoder_weights.read(name, shape)

    def read_embedding(self) -> Tensor:
        """Read the token embeddings (vocab_size, d_model) in float32, which are stored under one of two names."""
        weights = self._encoder_weights
        shape = (self.architecture.vocab_size, self.architecture.d_model)
        shared, own = "shared.weight", "encoder.embed_tokens.weight"
        if shared not in weights:
            return weights.read(own, shape)
        embedding = weights.read(shared, shape)
        if own in weights and not torch.equal(embedding, weights.read(own, shape)):
            raise ValueError(f"{weights.source}: {shared} and {own} differ, but T5 has one embedding. {_SUPPORTED}")
        return embedding

    def read_dense(self) -> Tensor | None:
        """Read the weight (dimension, d_model) of the Dense layer in float32; None if there is no Dense layer.

        It has no rows for the numbers that ``truncate_dim`` cuts off.
        """
        weights, dimension, d_model = self._dense_weights, self.architecture.dimension, self.architecture.d_model
        if weights is None:
            return None if dimension == d_model else torch.eye(dimension, d_model)
        if "linear.bias" in weights:
            raise ValueError(f"{weights.source} has a linear.bias, but its config.json says bias: false. {_SUPPORTED}")
        return weights.read("linear.weight", (self._full_dimension, d_model))[:dimension].clone()

    def _read_modules(self) -> list[_Module]:
        path = self.folder / "modules.json"
        if not is_file(path):
            if any(self.folder.glob("*.onnx")):
                raise ValueError(
                    f"{self.folder} is an ONNX export, as Spark NLP loads it, without the Dense layer. Pass the "
                    "checkpoint that it was made from, such as hkunlp/instructor-base."
                )
            raise FileNotFoundError(f"{self.folder} has no modules.json: it is not a sentence-transformers checkpoint")
        modules = self._read_json(path, list)
        objects = [JsonObject(path, module if isinstance(module, dict) else {}) for module in modules]
        # A type is only compared with the supported names; nothing is imported by it.
        kinds = [_strip_package(module.get("type", str)) for module in objects]
        if kinds[:2] in _INSTRUCTOR_TYPES:
            self._is_of_instructor_library = True
            kinds[:2] = ["Transformer", "Pooling"]
        if kinds not in _LAYOUTS:
            raise ValueError(
                f"{path} lists the modules {short_repr(kinds)}; expected Transformer and Pooling, and optionally Dense "
                f"and Normalize. {_SUPPORTED}"
            )
        return [_Module(kind, self._resolve_folder(module)) for kind, module in zip(kinds, objects, strict=True)]

    def _resolve_folder(self, module: JsonObject) -> Path:
        """Return the folder of a module; raise ValueError if it is outside the checkpoint."""
        relative = module.get("path", str) or ""
        if Path(relative).is_absolute() or ".." in Path(relative).parts:
            raise ValueError(f"{module.path}: the path {short_repr(relative)} leads out of the checkpoint")
        if not is_valid_name(relative):
            raise ValueError(f"{module.path}: the path {short_repr(relative)} is not a valid folder name")
        return self.folder / relative

    def _find_module_folder(self, kind: str) -> Path | None:
        return next((module.folder for module in self._modules if module.kind == kind), None)

    def _check_transformer(self, config: JsonObject) -> None:
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
        path = self._encoder_folder / "sentence_bert_config.json"
        settings = self._read_optional_json(path)
        if JsonObject(path, settings).get("do_lower_case", bool):
            raise ValueError(f"{path}: do_lower_case is not supported; lowercase the texts yourself")
        for name in _TOKENIZER_SETTINGS:
            if settings.get(name):
                raise ValueError(f"{path}: {name} is {short_repr(settings[name])}, but the encoder does not support it")
        path = self._encoder_folder / "tokenizer_config.json"
        tokenizer_config = JsonObject(path, self._read_optional_json(path))
        if tokenizer_config.get("split_special_tokens", bool):
            raise ValueError(f"{path}: split_special_tokens is not supported; the text </s> is always one token")
        side = tokenizer_config.get("truncation_side", str, "right")
        if side != "right":
            raise ValueError(
                f"{path}: truncation_side {short_repr(side)} is not supported; only the end of a text can be cut off"
            )

    def _read_pooling(self) -> JsonObject:
        folder = self._find_module_folder("Pooling")
        assert folder is not None  # _read_modules requires it
        path = folder / "config.json"
        content = self._read_json(path)
        config = JsonObject(path, content)
        flags = {"pooling_mode_mean_tokens": True, **config.get_flags("pooling_mode_")}
        enabled = [name for name, value in flags.items() if value]
        # Newer releases of sentence-transformers write one pooling_mode instead of the flags.
        if content.get("pooling_mode", "mean") not in ("mean", ["mean"]) or enabled != ["pooling_mode_mean_tokens"]:
            raise ValueError(f"{path}: only mean pooling is supported. {_SUPPORTED}")
        return config

    def _read_include_prompt(self, pooling: JsonObject, config: JsonObject) -> bool:
        """Return whether the instruction's tokens are in the mean.

        INSTRUCTOR leaves them out. Its checkpoints on the hub do not say so, so sentence-transformers has a list of
        them, and pools the instructions of others unless ``include_prompt`` is false.
        """
        include_prompt = pooling.get("include_prompt", bool)
        if include_prompt is False or self._is_of_instructor_library:
            return False
        if "instructor" in (config.get("_name_or_path", str) or "").lower():
            return False
        model_card = self._find_file(self.folder / MODEL_CARD)
        if model_card is not None:
            return _INSTRUCTOR_CARD.search(read_bytes(model_card).decode("utf-8", "replace")) is None
        if include_prompt is None:
            raise ValueError(
                f"{pooling.path} has no include_prompt, and {self.folder} has no {MODEL_CARD} that says whether this "
                "is an INSTRUCTOR model. Set include_prompt to false if it is one, and to true for GTR-T5, Sentence-T5 "
                "and others, which pool the instruction with the text."
            )
        return True

    def _read_default_prompt(self) -> str:
        name = self._settings.get("default_prompt_name", str)
        if name is None:
            return ""
        prompt = self._settings.get_object("prompts").get(name, str)
        if prompt is None:
            path = self._settings.path
            raise ValueError(f"{path}: default_prompt_name is {short_repr(name)}, but prompts has no text of this name")
        return prompt

    def _read_architecture(self, config: JsonObject) -> Architecture:
        epsilon = config.get("layer_norm_epsilon", float, 1e-6)
        if epsilon is None or not 0 < epsilon < 1:
            raise ValueError(f"{config.path}: layer_norm_epsilon is {epsilon!r}, expected a small positive number")
        names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
        shape = {name: config.get_whole_number(name) for name in names}
        # A quarter of the buckets, in each direction, have one short distance each. The maximum distance must be longer
        # than these, because the other buckets share the range in between.
        buckets = config.get_whole_number("relative_attention_num_buckets", 32, minimum=4)
        max_distance = config.get_whole_number("relative_attention_max_distance", 128, minimum=buckets // 4 + 1)
        self._full_dimension = self._read_dimension(shape["d_model"])
        return Architecture(
            **shape,
            relative_attention_num_buckets=buckets,
            relative_attention_max_distance=max_distance,
            layer_norm_epsilon=epsilon,
            dimension=min(self._full_dimension, self._settings.get_whole_number("truncate_dim", self._full_dimension)),
        )

    def _read_dimension(self, d_model: int) -> int:
        """Return the width of the vectors before truncation, which is the output width of the Dense layer.

        The width in 1_Pooling/config.json is not reliable.
        """
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
            value = self._read_optional_json(path).get(key)
            if value is None or (type(value) is int and value >= _UNLIMITED):
                continue
            if type(value) is not int or not 2 <= value <= MAX_LENGTH:
                raise ValueError(
                    f"{path}: {key} is {short_repr(value)}, expected a whole number of at least 2 "
                    f"and at most {MAX_LENGTH}"
                )
            return value
        return _DEFAULT_MAX_LENGTH

    def _read_added_tokens(self) -> list[ListedToken]:
        """Return the tokens that transformers adds to the tokenizer if its own file does not contain them."""
        path = self._encoder_folder / "added_tokens.json"
        listed = []
        for token, number in self._read_optional_json(path).items():
            if type(number) is not int:
                # The error does not show the value: the file may be a link to one that must stay secret.
                kind = type(number).__name__
                raise ValueError(f"{path}: the id of {short_repr(token)} has type {kind}, expected a whole number")
            listed.append(ListedToken(path, token, str(number)))

        path = self._encoder_folder / "tokenizer_config.json"
        config = self._read_optional_json(path)
        listed += [ListedToken(path, token, None) for token in _list_special_tokens(config)]
        tokens = config.get("added_tokens_decoder")
        tokens = {} if tokens is None else tokens
        if not isinstance(tokens, dict):
            raise ValueError(
                f"{path}: added_tokens_decoder is {short_repr(tokens)}, expected an object that maps ids to tokens"
            )
        for number, token in tokens.items():
            content = token.get("content") if isinstance(token, dict) else None
            if not isinstance(content, str):
                raise ValueError(
                    f"{path}: added_tokens_decoder maps {short_repr(number)} to {short_repr(token)}, expected an "
                    "object whose content is text"
                )
            listed.append(ListedToken(path, content, number))
        return listed

    def _open_weights(self) -> None:
        self._encoder_weights = open_weights(self._encoder_folder)
        self._hashed_files += self._encoder_weights.files
        dense_folder = self._find_module_folder("Dense")
        self._dense_weights = None if dense_folder is None else open_weights(dense_folder)
        if self._dense_weights is not None:
            self._hashed_files += self._dense_weights.files

    def _read_object(self, path: Path) -> JsonObject:
        return JsonObject(path, self._read_json(path))

    def _read_optional_json(self, path: Path) -> Any:
        return self._read_json(path) if is_file(path) else {}

    def _read_json(self, path: Path, kind: type = dict) -> Any:
        self._hashed_files.append(path)
        return read_json(path, kind)

    def _find_file(self, path: Path) -> Path | None:
        if not is_file(path):
            return None
        self._hashed_files.append(path)
        return path


def _list_special_tokens(tokenizer_config: dict[str, Any]) -> Iterator[str]:
    """Yield the special tokens that a tokenizer_config.json names, such as its ``eos_token``."""
    for key, value in tokenizer_config.items():
        if key in ("additional_special_tokens", "extra_special_tokens"):
            tokens = list(value.values()) if isinstance(value, dict) else value
        else:
            tokens = [value] if key.endswith("_token") else []
        for token in tokens if isinstance(tokens, list) else []:
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str):
                yield content


def _strip_package(dotted: str | None) -> str:
    """Return the last part of a dotted name, such as Identity for torch.nn.Identity."""
    return (dotted or "").rpartition(".")[2]
