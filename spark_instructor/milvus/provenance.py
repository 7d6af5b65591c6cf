"""Which model embedded a collection: stored in its properties when it is created, and compared with other vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..provenance import PROVENANCE, check_same_model, get_provenance


def create_properties(provenance: Mapping[str, str]) -> dict[str, str]:
    """Return the properties of a new collection."""
    return {PROVENANCE: json.dumps(provenance)} if provenance else {}


def check_collection_model(
    description: Mapping[str, Any], provenance: Mapping[str, str], name: str, remedy: str
) -> None:
    """Raise ValueError if a collection holds the vectors of another model; see `check_same_model`.

    A collection that `write_to_milvus` did not create does not say which model embedded it, and passes.
    """
    properties = description.get("properties") or {}
    held = get_provenance({PROVENANCE: json.loads(properties.get(PROVENANCE, "{}"))})
    check_same_model(held, provenance, f"collection {description['collection_name']!r}", name, remedy)
