"""prepared.json, the manifest of a prepared folder.

`prepare` writes to a folder of the cache whose name comes from the manifest's name and hash, so these must not lead
out of the cache.
"""

import json

from . import damage
from .case import MANIFEST, WEIGHTS, refusal, shorten

# Keys and their wrong values; None is written as null.
WRONG_VALUES = [
    (
        "name",
        [
            *("../evil", "../../evil", "/tmp/evil", ".hidden", "a/b", "", "a\0b", "x" * 300, "\ud800"),
            *(3, True, None, [], {}),
        ],
    ),
    ("hash", ["", "../" * 20, "g" * 64, 3, None, []]),
    ("precision", ["float16", "", 3, None, []]),
    ("max_length", [True, 1, -1, 0.5, "512", None, []]),
    ("architecture", [None, 3, [], {}, {"d_model": 1}]),
    ("include_prompt", [None, 0, "true", []]),
    ("default_prompt", [None, 3, True, []]),
    ("has_normalize", [None, 1, "true", []]),
    ("files", [None, 3, [], {}, {"../secret.txt": 1}, {WEIGHTS: [], "tokenizer.json": "x"}]),
    ("sizes", [None, 3, [], {}, {"../secret.txt": 1}, {WEIGHTS: [], "tokenizer.json": "x"}]),
]

# Manifests in a folder that is otherwise a checkpoint, and what the error must name.
WRONG_MANIFESTS = [
    ("", MANIFEST),
    ("[]", MANIFEST),
    ("{}", MANIFEST),
    ('{"format_version": 1}', MANIFEST),
    ('{"format_version": "x"}', ""),
    ("9" * 5000, MANIFEST),
    ("[" * 100_000, MANIFEST),
]

# Contents that are not weights; the manifest has the correct size of each.
NO_WEIGHTS = [b"", b"\xff" * 100, b"PK"]


def cases():
    for key, values in WRONG_VALUES:
        for value in values:
            yield refusal("prepared", MANIFEST, f"{key} = {shorten(value)}", damage.set_keys, {key: value})
    for content, error_names in WRONG_MANIFESTS:
        what = f"holds {shorten(content)}"
        yield refusal("safetensors", MANIFEST, what, damage.write, content, error_names=error_names)
    for content in NO_WEIGHTS:
        yield refusal("prepared", WEIGHTS, f"holds {shorten(content)}", write_weights, content)


def write_weights(path, content):
    damage.write(path, content)
    manifest = path.with_name(MANIFEST)
    sizes = json.loads(manifest.read_text("utf-8"))["sizes"]
    damage.set_keys(manifest, {"sizes": {**sizes, path.name: len(content)}})
