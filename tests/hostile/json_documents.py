"""JSON files that contain the wrong type of document, or no JSON."""

import json

from . import damage
from .case import CONFIG, DENSE, INDEX, LIMIT, MODULES, POOLING, SETTINGS, TOKENIZER, TOKENIZER_CONFIG, refusal

# The checkpoint, the file, and a list if the file must contain an object, or an object if it must contain a list.
FILES = [
    ("safetensors", CONFIG, []),
    ("safetensors", MODULES, {}),
    ("safetensors", LIMIT, []),
    ("safetensors", TOKENIZER, []),
    ("safetensors", POOLING, []),
    ("safetensors", SETTINGS, []),
    ("safetensors", DENSE, []),
    ("sharded", INDEX, []),
    ("slow", TOKENIZER_CONFIG, []),
]
SCALARS = [None, True, 3, -0.5, "text"]

# A different function reads each of these files.
READ_BY_THEIR_OWN_FUNCTION = [("safetensors", CONFIG), ("safetensors", TOKENIZER), ("sharded", INDEX)]
MALFORMED = {
    "lists in lists": "[" * 100_000 + "]" * 100_000,
    "objects in objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "a number of 5000 digits": '{"a": ' + "9" * 5000 + "}",
    "two objects": "{}{}",
    "a byte order mark": "\ufeff{}",
    "single quotes": "{'a': 1}",
    "a comment": "{} // {}",
    "UTF-16": "{}".encode("utf-16"),
    "bytes of no encoding": b'{"a": "\xff\xfe"}',
}


def cases():
    for checkpoint, file, wrong_kind in FILES:
        for content in (*SCALARS, wrong_kind):
            yield refusal(checkpoint, file, f"holds {content!r}", damage.write, json.dumps(content))
    for checkpoint, file in READ_BY_THEIR_OWN_FUNCTION:
        for what, content in MALFORMED.items():
            yield refusal(checkpoint, file, f"holds {what}", damage.write, content)
