"""``spark-instructor search``: find the rows that are nearest to a question."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any


def run_search(arguments: argparse.Namespace) -> None:
    """Embed the question with the model of the file and print the nearest rows."""
    from ..encoder import InstructorModel
    from ..models.prepared import is_prepared
    from ..models.registry import find_checkpoint
    from ..provenance import get_provenance
    from ..search import check_model, find_nearest, open_parquet, read_metadata

    dataset = open_parquet(arguments.input, arguments.vector_col)
    provenance = get_provenance(read_metadata(dataset, arguments.vector_col))
    name = arguments.model or provenance.get("model")
    if name is None:
        raise ValueError(f"{arguments.input} does not say which model embedded it; pass --model")
    try:
        folder = find_checkpoint(name, arguments.revision or provenance.get("revision"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; pass the model that embedded {arguments.input} as --model") from error
    # A checkpoint is prepared in the precision of the file; a prepared model has its own.
    of_file = None if is_prepared(folder) else provenance.get("precision")
    model = InstructorModel.from_pretrained(folder, precision=arguments.precision or of_file)
    check_model(dataset, arguments.vector_col, model.prepared, arguments.input)
    (query,) = model.encode(arguments.instruction, [" ".join(arguments.question)])
    hits = find_nearest(dataset, arguments.vector_col, query, arguments.k)
    if not hits:
        raise ValueError(
            f"{arguments.input} has no vectors in the column {arguments.vector_col!r}, so nothing is found"
        )
    for rank, hit in enumerate(hits, 1):
        print(f"{rank:>3}. {hit.similarity:.3f}  " + _format_row(hit.row))


def _format_row(row: dict[str, Any]) -> str:
    values = (f"{name}: {textwrap.shorten(str(value), 100, placeholder=' ...')}" for name, value in row.items())
    return "\n            ".join(values)
