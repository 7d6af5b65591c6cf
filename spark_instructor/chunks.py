"""What a task does to split texts into chunks: it loads the tokenizer of a model alone, so it does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from .arrays import TextColumn, cut_rows
from .encoder.splitting import TokenSplitter
from .encoder.tokenizer import T5Tokenizer
from .models.host_cache import HostModel, ModelLocation, locate_model
from .models.prepared import TOKENIZER, PreparedModel

DOCUMENT, CHUNK, CHUNKS, TOKENS, BEGIN, END, TEXT = "document", "chunk", "chunks", "tokens", "begin", "end", "text"
"""Results for every row: an array of each, with one element per chunk."""

NUMBERS = (DOCUMENT, CHUNK, CHUNKS, TOKENS, BEGIN, END)
"""The results that are whole numbers."""

_RESULT = pa.struct([*((name, pa.list_(pa.int32())) for name in NUMBERS), (TEXT, pa.list_(pa.string()))])

_MAX_BYTES = 8_000_000  # of texts at once, so that memory does not grow with the rows of a batch


@dataclasses.dataclass(frozen=True)
class SplitJob:
    """The work of a `DocumentTokenSplitter`, as it travels to the executors."""

    model: ModelLocation
    instruction: str
    num_tokens: int
    token_overlap: int
    trim_whitespace: bool

    def create_splitter(self, model: HostModel) -> TokenSplitter:
        """Return what splits the texts; ``model`` is the model on this host."""
        return TokenSplitter(
            load_tokenizer(model), self.instruction, self.num_tokens, self.token_overlap, self.trim_whitespace
        )


def split_arrays(arguments: dict[str, Any], batches: Iterator[pa.ListArray]) -> Iterator[pa.StructArray]:
    """Split arrays of texts; row i of the results belongs to row i of the arrays.

    A row of the results has arrays with one element per chunk: which text of the row it is of (`DOCUMENT`), which chunk
    of it (`CHUNK`), of how many (`CHUNKS`), its `TOKENS`, its place (`BEGIN` and `END`, in UTF-16 units) and its
    `TEXT`. A null row gives null arrays, and a null text gives no chunk. The results of a batch come in pieces, so that
    memory does not grow with its size.
    """
    job = SplitJob(**{**arguments, "model": ModelLocation(**arguments["model"])})
    splitter = job.create_splitter(locate_model(job.model, prepare=_prepare_model))
    for batch in batches:
        for rows in cut_rows(TextColumn(batch).count_bytes(), _MAX_BYTES):
            yield pa.array([split_texts(splitter, texts) for texts in batch[rows].to_pylist()], _RESULT)


def split_series(arguments: dict[str, Any], batches: Iterator[pd.Series[Any]]) -> Iterator[pd.DataFrame]:
    """Do what `split_arrays` does, for a pandas UDF."""
    arrays = (pa.array(batch, pa.list_(pa.string()), from_pandas=True) for batch in batches)
    for results in split_arrays(arguments, arrays):
        yield pd.DataFrame({field.name: results.field(field.name).to_pandas() for field in _RESULT})


def split_texts(splitter: TokenSplitter, texts: list[str | None] | None) -> dict[str, Any]:
    """Split the texts of a row, and return the row of the results."""
    if texts is None:
        return {field.name: None for field in _RESULT}
    result: dict[str, list[Any]] = {field.name: [] for field in _RESULT}
    for document, text in enumerate(texts):
        chunks = list(splitter.split(text or ""))
        result[DOCUMENT] += [document] * len(chunks)
        result[CHUNK] += range(len(chunks))
        result[CHUNKS] += [len(chunks)] * len(chunks)
        result[TOKENS] += [chunk.tokens for chunk in chunks]
        result[BEGIN] += [chunk.begin for chunk in chunks]
        result[END] += [chunk.end for chunk in chunks]
        result[TEXT] += [chunk.text for chunk in chunks]
    return result


@lru_cache(maxsize=2)  # as many as there are models in a worker
def load_tokenizer(model: HostModel) -> T5Tokenizer:
    """Return the tokenizer of a model; this process keeps the most recently used ones."""
    return T5Tokenizer(Path(model.folder, TOKENIZER))


def _prepare_model(*args: Any, **options: Any) -> PreparedModel:
    """Do what the encoder's `prepare_model` does, and import torch only on a host that has to prepare a model."""
    from .encoder import prepare_model

    return prepare_model(*args, **options)
