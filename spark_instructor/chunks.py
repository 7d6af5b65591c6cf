"""What a task does to cut texts into chunks or sentences. It loads no torch, and a tokenizer only for chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from .arrays import TextColumn, cut_rows
from .encoder.splitting import TokenSplitter
from .encoder.tokenizer import T5Tokenizer
from .models.host_cache import HostModel, ModelLocation, locate_model
from .models.prepared import TOKENIZER, PreparedModel
from .sentences import SentenceFinder

DOCUMENT, CHUNK, CHUNKS, TOKENS, SENTENCE = "document", "chunk", "chunks", "tokens", "sentence"
BEGIN, END, TEXT = "begin", "end", "text"
"""Results for every row: an array of each, with one element per chunk or sentence."""

CHUNK_NUMBERS = (DOCUMENT, CHUNK, CHUNKS, TOKENS, BEGIN, END)
"""The whole numbers among the results of `split_arrays`."""
SENTENCE_NUMBERS = (DOCUMENT, SENTENCE, BEGIN, END)
"""The whole numbers among the results of `detect_arrays`."""

Row = dict[str, Any]
"""A row of the results: a list for each of them, or None if the row is null."""

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
    """Split arrays of texts into chunks; row i of the results belongs to row i of the arrays.

    A row of the results has arrays with one element per chunk: which text of the row it is of (`DOCUMENT`), which chunk
    of it (`CHUNK`), of how many (`CHUNKS`), its `TOKENS`, its place (`BEGIN` and `END`, in UTF-16 units) and its
    `TEXT`. A null row gives null arrays, and a null text gives no chunk. The results of a batch come in pieces, so that
    memory does not grow with its size.
    """
    job = SplitJob(**{**arguments, "model": ModelLocation(**arguments["model"])})
    splitter = job.create_splitter(locate_model(job.model, prepare=_prepare_model))
    return _cut_batches(partial(split_texts, splitter), CHUNK_NUMBERS, batches)


def split_series(arguments: dict[str, Any], batches: Iterator[pd.Series[Any]]) -> Iterator[pd.DataFrame]:
    """Do what `split_arrays` does, for a pandas UDF."""
    return _to_frames(split_arrays(arguments, _to_arrays(batches)))


def detect_arrays(arguments: dict[str, Any], batches: Iterator[pa.ListArray]) -> Iterator[pa.StructArray]:
    """Find the sentences in arrays of texts; ``arguments`` are the fields of a `SentenceFinder`.

    The results are those of `split_arrays`, but with the number of the sentence in its row (`SENTENCE`) instead of
    `CHUNK`, `CHUNKS` and `TOKENS`.
    """
    finder = SentenceFinder(**arguments)
    return _cut_batches(partial(detect_texts, finder), SENTENCE_NUMBERS, batches)


def detect_series(arguments: dict[str, Any], batches: Iterator[pd.Series[Any]]) -> Iterator[pd.DataFrame]:
    """Do what `detect_arrays` does, for a pandas UDF."""
    return _to_frames(detect_arrays(arguments, _to_arrays(batches)))


def split_texts(splitter: TokenSplitter, texts: list[str | None] | None) -> Row:
    """Split the texts of a row into chunks, and return the row of the results."""
    row = _create_row(CHUNK_NUMBERS, texts)
    for document, text in enumerate(texts or []):
        chunks = list(splitter.split(text or ""))
        row[DOCUMENT] += [document] * len(chunks)
        row[CHUNK] += range(len(chunks))
        row[CHUNKS] += [len(chunks)] * len(chunks)
        row[TOKENS] += [chunk.tokens for chunk in chunks]
        row[BEGIN] += [chunk.begin for chunk in chunks]
        row[END] += [chunk.end for chunk in chunks]
        row[TEXT] += [chunk.text for chunk in chunks]
    return row


def detect_texts(finder: SentenceFinder, texts: list[str | None] | None) -> Row:
    """Find the sentences in the texts of a row, and return the row of the results."""
    row = _create_row(SENTENCE_NUMBERS, texts)
    for document, text in enumerate(texts or []):
        sentences = list(finder.find(text or ""))
        row[DOCUMENT] += [document] * len(sentences)
        row[SENTENCE] += range(len(row[TEXT]), len(row[TEXT]) + len(sentences))
        row[BEGIN] += [sentence.begin for sentence in sentences]
        row[END] += [sentence.end for sentence in sentences]
        row[TEXT] += [sentence.text for sentence in sentences]
    return row


def _create_row(numbers: Sequence[str], texts: list[str | None] | None) -> Row:
    return {name: None if texts is None else [] for name in (*numbers, TEXT)}


def _cut_batches(
    cut: Callable[[list[str | None] | None], Row], numbers: Sequence[str], batches: Iterator[pa.ListArray]
) -> Iterator[pa.StructArray]:
    row_type = pa.struct([*((name, pa.list_(pa.int32())) for name in numbers), (TEXT, pa.list_(pa.string()))])
    for batch in batches:
        for rows in cut_rows(TextColumn(batch).count_bytes(), _MAX_BYTES):
            yield pa.array([cut(texts) for texts in batch[rows].to_pylist()], row_type)


def _to_arrays(batches: Iterator[pd.Series[Any]]) -> Iterator[pa.ListArray]:
    return (pa.array(batch, pa.list_(pa.string()), from_pandas=True) for batch in batches)


def _to_frames(results: Iterator[pa.StructArray]) -> Iterator[pd.DataFrame]:
    for struct in results:
        yield pd.DataFrame({field.name: struct.field(field.name).to_pandas() for field in struct.type})


@lru_cache(maxsize=2)  # as many as there are models in a worker
def load_tokenizer(model: HostModel) -> T5Tokenizer:
    """Return the tokenizer of a model; this process keeps the most recently used ones."""
    return T5Tokenizer(Path(model.folder, TOKENIZER))


def _prepare_model(*args: Any, **options: Any) -> PreparedModel:
    """Do what the encoder's `prepare_model` does, and import torch only on a host that has to prepare a model."""
    from .encoder import prepare_model

    return prepare_model(*args, **options)
