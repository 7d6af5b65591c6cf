"""The class for a case of damage, and the healthy checkpoints that the cases start from."""

from collections.abc import Callable
from typing import Any, NamedTuple

from checkpoints import edit_json, write_checkpoint, write_json

from spark_instructor.encoder import prepare

CONFIG, MODULES, LIMIT = "config.json", "modules.json", "sentence_bert_config.json"
SETTINGS = "config_sentence_transformers.json"
POOLING, DENSE = "1_Pooling/config.json", "2_Dense/config.json"
TOKENIZER, TOKENIZER_CONFIG, PIECES = "tokenizer.json", "tokenizer_config.json", "spiece.model"
WEIGHTS, PICKLE, INDEX = "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"
PICKLE_INDEX, PICKLE_SHARD = "pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"
DENSE_WEIGHTS, DENSE_PICKLE = f"2_Dense/{WEIGHTS}", f"2_Dense/{PICKLE}"
MANIFEST = "prepared.json"

SECRET = "the-secret-of-this-machine"


class Case(NamedTuple):
    """A way to damage one file of a healthy checkpoint, and what `prepare` must do with the result."""

    checkpoint: str
    """The healthy checkpoint: the name of a folder that `write_healthy` creates."""
    file: str
    """The path of the damaged file, relative to the checkpoint; "" means the checkpoint's folder itself."""
    what: str
    """What is wrong with the file; this is part of the case's name."""
    damage: Callable[..., Any]
    """The function that damages the file; it is called with the file's path and the arguments."""
    arguments: tuple[Any, ...]
    error_names: str | None
    """What the error must name besides the folder; None if `prepare` must accept the checkpoint."""

    @property
    def name(self):
        return f"{self.checkpoint}: {self.file or 'the folder'} {self.what}"

    def apply(self, folder):
        """Damage this copy of the healthy checkpoint."""
        self.damage(folder / self.file if self.file else folder, *self.arguments)


def refusal(checkpoint, file, what, damage, *arguments, error_names=None):
    """Create a case that `prepare` must refuse with an error that names the damaged file, or `error_names`."""
    return Case(checkpoint, file, what, damage, arguments, file if error_names is None else error_names)


def acceptance(checkpoint, file, what, damage, *arguments):
    """Create a case that `prepare` must accept, with the same vectors as the healthy checkpoint."""
    return Case(checkpoint, file, what, damage, arguments, None)


def write_slow_checkpoint(folder):
    """Write a checkpoint whose tokenizer is in spiece.model and whose length limit is in tokenizer_config.json."""
    write_checkpoint(folder, num_layers=1)
    (folder / TOKENIZER).unlink()
    (folder / LIMIT).unlink()
    edit_json(folder / TOKENIZER_CONFIG, model_max_length=512)


def write_healthy(root):
    """Write each healthy checkpoint into a folder with its name."""
    write_json(write_checkpoint(root / "safetensors", num_layers=1) / SETTINGS, {})
    write_checkpoint(root / "bin", num_layers=1, stored_as="bin")
    write_checkpoint(root / "sharded", num_layers=1, stored_as="sharded")
    write_checkpoint(root / "sharded bin", num_layers=1, stored_as="sharded bin")
    write_slow_checkpoint(root / "slow")
    prepare(root / "safetensors", into=root / "prepared")


def folder_around(path):
    """Return the folder that contains this file's checkpoint.

    It also contains secret.txt, secret.json and a healthy checkpoint called "other". If a pickle's code is executed,
    it creates "canary" there.
    """
    return next(folder for folder in (path, *path.parents) if folder.name == "checkpoint").parent


def shorten(value):
    """Describe a value briefly, for the name of a case."""
    text = ascii(value)
    return text if len(text) < 40 else f"{text[:16]}... ({len(text)})"
