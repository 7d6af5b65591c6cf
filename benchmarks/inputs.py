"""The texts and the models of the benchmarks."""

import dataclasses
import gzip
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
import numpy.typing as npt

from spark_instructor.models.prepared import hash_file
from spark_instructor.models.publishing import publish_folder

HERE = Path(__file__).parent
DOCUMENT_INSTRUCTION = "Represent the document for retrieval: "
QUESTION_INSTRUCTION = "Represent the question for retrieval: "
SETS = ("texts", "queries", "repeats")
REPEATED = 0.37  # of the rows of the set "repeats"
CHECKED = 100  # texts per set whose vectors are compared with float64

SHAPES = {
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},  # instructor-base
    "large": {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16},  # instructor-large
    "layer": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 1, "num_heads": 12},  # one layer of base
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},  # t5-small
}
_DIMENSION = 768
_VOCABULARY = 32128


class TextSet(NamedTuple):
    """Texts that are embedded with one instruction."""

    name: str
    instruction: str
    texts: list[str]

    def checked(self) -> "TextSet":
        """Return evenly spaced texts, whose vectors are compared with float64."""
        return self._replace(texts=self.texts[:: max(len(self.texts) // CHECKED, 1)][:CHECKED])


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint in the hub's layout."""

    path: Path
    derived: Path
    """Return the folder for what is derived from it once: references, and the formats of other engines."""
    max_length: int
    config: dict[str, Any]

    def flops(self, lengths: npt.NDArray[np.int64]) -> float:
        """Return the floating-point operations of the matrix products for texts of these lengths, without padding.

        Each multiply-add counts as two, in the matrices of the layers and in the two products of the attention.
        """
        shape = self.config
        inner = shape["num_heads"] * shape["d_kv"]
        of_token = shape["d_model"] * (4 * inner + 2 * shape["d_ff"])
        attention = 2 * inner * float(np.square(lengths, dtype=np.float64).sum())
        return 2 * shape["num_layers"] * (of_token * float(lengths.sum()) + attention)


def model(path: Path | None, shape: str = "base") -> Model:
    """Return the checkpoint at ``path``, or one with random weights and a shape of `SHAPES`, which is created once.

    Raises FileNotFoundError if the path holds no checkpoint.
    """
    if path is None:
        path = common.cache() / f"random-{shape}"
        if not path.is_dir():
            common.say(f"Writing a checkpoint of random weights to {path}")
            common.run_apart(_write_checkpoint, path, shape, on=common.cores(1))
    limits = json.loads((path / "sentence_bert_config.json").read_text("utf-8"))
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(hash_file(file).encode())
    return Model(
        path=path.absolute(),
        derived=common.cache() / "derived" / digest.hexdigest()[:16],
        max_length=limits["max_seq_length"],
        config=json.loads((path / "config.json").read_text("utf-8")),
    )


def text_set(name: str, count: int) -> TextSet:
    """Return one of `SETS` (passages, questions, or passages with repeats): at most ``count`` texts of all lengths."""
    if name == "queries":
        return TextSet(name, QUESTION_INSTRUCTION, _sample(_read("queries"), count))
    passages = _sample(_read("passages"), count)
    return TextSet(name, DOCUMENT_INSTRUCTION, passages if name == "texts" else _with_repeats(passages))


def of_words(words: int, count: int) -> TextSet:
    """Return distinct texts with this number of words each, cut from the passages."""
    stream = " ".join(_read("passages")).split()
    starts = (i * 7 % (len(stream) - words) for i in range(count))
    return TextSet(
        f"{words} words",
        DOCUMENT_INSTRUCTION,
        [" ".join((str(i), *stream[start : start + words - 1])) for i, start in enumerate(starts)],
    )


def shares(texts: list[str], count: int) -> list[list[str]]:
    """Deal the texts into ``count`` shares of equal work, with equally many texts of each length, and shuffle them."""
    dealt: list[list[str]] = [[] for _ in range(count)]
    for i, text in enumerate(sorted(texts, key=len)):
        turn, place = divmod(i, count)
        dealt[-1 - place if turn % 2 else place].append(text)  # there and back, so that no share gets the longer texts
    return [_shuffle(share) for share in dealt]


def _sample(texts: list[str], count: int) -> list[str]:
    """Take at most ``count`` texts, evenly spaced over their lengths, and shuffle them."""
    if count < len(texts):
        by_length = sorted(texts, key=len)
        texts = [by_length[(2 * i + 1) * len(texts) // (2 * count)] for i in range(count)]
    return _shuffle(texts)


def _with_repeats(texts: list[str]) -> list[str]:
    """Replace `REPEATED` of the texts with texts of about the same length, so that the number of tokens stays."""
    by_length = sorted(texts, key=len)
    for i in range(1, len(by_length)):
        if int(i * REPEATED) > int((i - 1) * REPEATED):
            by_length[i] = by_length[i - 1]
    return _shuffle(by_length)


def _shuffle(texts: list[str]) -> list[str]:
    return random.Random(0).sample(texts, len(texts))


def _read(name: str) -> list[str]:
    return [row["text"] for row in common.read_jsonl(HERE / "data" / f"{name}.jsonl.gz")]


def _write_checkpoint(path: Path, shape: str) -> None:
    sys.path.append(str(HERE.parent / "tests"))
    from checkpoints import write_checkpoint, write_json

    with publish_folder(path) as new:
        write_checkpoint(new, dimension=_DIMENSION, vocab_size=_VOCABULARY, tokenizer_files=(), **SHAPES[shape])
        (new / "tokenizer.json").write_bytes(gzip.decompress((HERE / "data/tokenizer.json.gz").read_bytes()))
        special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        write_json(
            new / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, **special}
        )
