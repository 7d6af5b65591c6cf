"""Malformed checkpoints, one module per kind of damage.

Each module begins with tables that say what is damaged and how; its `cases()` turns each row into a `Case`. To test
another damage, add a row to a table. To test another kind, add a module and list it in KINDS. Case names are unique.
"""

from . import (
    files,
    json_documents,
    json_values,
    links,
    manifests,
    modules,
    pickles,
    pieces,
    safetensors_headers,
    shards,
    tensors,
    tokenizer_json,
)

KINDS = {
    module.__name__.partition(".")[2]: module.cases
    for module in (
        *(files, links, json_documents, json_values, modules, tensors, safetensors_headers, shards, pickles),
        *(tokenizer_json, pieces, manifests),
    )
}
