"""modules.json: its paths must stay inside the checkpoint, and its types must be those of an INSTRUCTOR model."""

import json
from pathlib import Path

from checkpoints import write_json

from . import damage
from .case import MODULES, acceptance, refusal, shorten
from .damage import NESTED_LIST

# The first four of these paths lead to a healthy module.
OUTSIDE = [
    "../other/2_Dense",
    "2_Dense/../../other/2_Dense",
    "./../other/2_Dense",
    "../checkpoint/2_Dense",
    "..",
    "/etc",
]
NO_PATHS = [3, True, ["2_Dense"], NESTED_LIST]
NO_TYPES = [None, 3, [], "", "Transformer.", "os.system", "x" * 100_000, NESTED_LIST]
ODD_PATHS = ["/", "//etc", "2_Dense\0", "2_Dense\n", "\ud800", "x" * 5000, "x/" * 3000]
SAME_PATHS = ["./2_Dense", "2_Dense/", "2_Dense//", "./2_Dense/."]

# The module's position in the list, its type, and wrong paths for it.
LISTED = [
    (0, "Transformer", [*OUTSIDE, *NO_PATHS]),
    (1, "Pooling", [*OUTSIDE, *NO_PATHS]),
    (2, "Dense", [*OUTSIDE, *NO_PATHS, *ODD_PATHS]),
]
WRONG_LISTS = {
    "nothing": [],
    "texts": ["Transformer", "Pooling"],
    "lists": [["Transformer"], ["Pooling"]],
    "nulls": [None] * 4,
    "many modules": [{"type": "Transformer", "path": ""}] * 50_000,
}


def cases():
    for number, module, paths in LISTED:
        for path in paths:
            yield refusal("safetensors", MODULES, f"{module} in {shorten(path)}", edit, number, "path", path)
        what = f"{module} in a folder that is missing"
        yield refusal("safetensors", MODULES, what, edit, number, "path", "nowhere", error_names="nowhere")
        for type_ in NO_TYPES:
            yield refusal("safetensors", MODULES, f"{module} is {shorten(type_)}", edit, number, "type", type_)
        own_library = f"instructor.INSTRUCTOR_{module}"
        yield refusal("safetensors", MODULES, f"{module} alone is {own_library}", edit, number, "type", own_library)
        other_package = f"evil_module_that_is_not_imported.{module}"
        yield acceptance("safetensors", MODULES, f"{module} of another package", edit, number, "type", other_package)
    for path in SAME_PATHS:
        yield acceptance("safetensors", MODULES, f"Dense in {path}", edit, 2, "path", path)
    for what, modules in WRONG_LISTS.items():
        yield refusal("safetensors", MODULES, f"lists {what}", damage.write, json.dumps(modules))
    yield acceptance("safetensors", "3_Normalize", "is a folder", Path.mkdir)


def edit(path, number, key, value):
    modules = json.loads(path.read_text("utf-8"))
    modules[number][key] = value
    write_json(path, modules)
