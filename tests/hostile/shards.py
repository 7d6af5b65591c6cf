"""The index of sharded weights, which names the file of each tensor."""

import json

from checkpoints import write_json

from . import damage
from .case import INDEX, PICKLE, PICKLE_INDEX, WEIGHTS, acceptance, refusal, shorten
from .damage import NESTED_LIST

# Wrong names for the file that contains the embedding.
NO_SHARDS = [
    "../other/model.safetensors",
    "./../other/model.safetensors",
    "/etc/passwd",
    "",
    ".",
    "..",
    "\0.safetensors",
    "\ud800.safetensors",
    "x" * 5000 + ".safetensors",
    "nowhere.safetensors",
    PICKLE,
    *(True, 3, 0.5, None, [], {}, NESTED_LIST),
]
NO_MAPS = [None, True, 3, "x", [], ["x"], {}, {"a": "nowhere.safetensors"}, {"": ""}, NESTED_LIST]
FINE_METADATA = [3, [], {"total_size": 10**30}]


# Wrong names for a shard of the same tensor in .bin files.
NO_PICKLE_SHARDS = ["../other/pytorch_model.bin", "./x.bin", "/etc/passwd", "\0.bin", "nowhere.bin", WEIGHTS, None, []]


def cases():
    for shard in NO_PICKLE_SHARDS:
        yield refusal("sharded bin", PICKLE_INDEX, f"names the shard {shorten(shard)}", set_shard, shard)
    yield refusal("sharded bin", PICKLE_INDEX, "names the other shard for each tensor", swap_shards)
    for shard in NO_SHARDS:
        yield refusal("sharded", INDEX, f"names the shard {shorten(shard)}", set_shard, shard)
    yield refusal(*("sharded", INDEX, "names a folder as a shard", name_a_folder), error_names="folder.safetensors")
    for weight_map in NO_MAPS:
        what = f"has the weight_map {shorten(weight_map)}"
        yield refusal("sharded", INDEX, what, damage.set_key, "weight_map", weight_map)
    for metadata in FINE_METADATA:
        yield acceptance("sharded", INDEX, f"has the metadata {metadata}", damage.set_key, "metadata", metadata)
    yield refusal("sharded", INDEX, "names the other shard for each tensor", swap_shards)
    yield refusal("sharded", INDEX, "names shards for two tensors only", keep_two)


def read_map(path):
    return json.loads(path.read_text("utf-8"))["weight_map"]


def set_shard(path, shard):
    write_json(path, {"weight_map": {**read_map(path), "shared.weight": shard}})


def name_a_folder(path):
    path.with_name("folder.safetensors").mkdir()
    set_shard(path, "folder.safetensors")


def swap_shards(path):
    weight_map = read_map(path)
    first, second = sorted({*weight_map.values()})
    swapped = {name: second if shard == first else first for name, shard in weight_map.items()}
    write_json(path, {"weight_map": swapped})


def keep_two(path):
    write_json(path, {"weight_map": dict(list(read_map(path).items())[:2])})
