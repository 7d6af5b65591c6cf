"""Which model embedded the vectors of a column, as its metadata says, and the check that two of them are comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROVENANCE = "spark_instructor"
"""Key under which the metadata of a column, and the properties of a collection of Milvus, say what embedded it."""


def get_provenance(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what `InstructorEmbeddings` wrote about its model into the metadata of a column.

    The keys are model, revision, precision, instruction and hash, as far as they are known. The dict is empty if
    something else made the column.
    """
    provenance: dict[str, str] = (metadata or {}).get(PROVENANCE, {})
    return provenance


def check_same_model(
    left: Mapping[str, str], right: Mapping[str, str], left_name: str, right_name: str, remedy: str
) -> None:
    """Raise ValueError if different models embedded two sets of vectors; it is no error if one model is not known.

    Args:
        left: The provenance of the first set.
        right: The provenance of the second set.
        left_name: What the error calls the first set, such as "column 'vector'".
        right_name: What the error calls the second set.
        remedy: A sentence that says what to do.
    """
    if "hash" in left and "hash" in right and left["hash"] != right["hash"]:
        raise ValueError(
            f"{left_name} was embedded with {_describe(left)}, and {right_name} with {_describe(right)}; vectors of "
            f"different models cannot be compared. {remedy}"
        )


def _describe(provenance: Mapping[str, str]) -> str:
    return f"{provenance['model']} in {provenance['precision']}"
