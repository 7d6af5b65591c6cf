"""Files that are missing, truncated, replaced with something else, or not regular files."""

from itertools import permutations
from pathlib import Path

from checkpoints import TINY

from . import damage
from .case import (
    CONFIG,
    DENSE,
    DENSE_PICKLE,
    DENSE_WEIGHTS,
    INDEX,
    LIMIT,
    MODULES,
    PICKLE,
    PICKLE_INDEX,
    PICKLE_SHARD,
    PIECES,
    POOLING,
    SETTINGS,
    SHARD,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    acceptance,
    refusal,
)

DAMAGES = {
    "is empty": (damage.cut_to, 0),
    "is cut after a byte": (damage.cut_to, 1),
    "is cut after 8 bytes": (damage.cut_to, 8),
    "is cut in the middle": (damage.cut_in_half,),
    "is cut by 3 bytes": (damage.cut_off, 3),
    "is random bytes": (damage.write, bytes(i * i * 7919 >> 5 & 255 for i in range(4000))),
    "is zeros": (damage.write, bytes(4096)),
    "is a web page": (damage.write, b"<!DOCTYPE html><html>404</html>"),
    "is a git-lfs pointer": (damage.write, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"),
    "is a secret": (damage.link_around, "secret.txt"),
    "is a secret in JSON": (damage.link_around, "secret.json"),
    "is another file": (damage.copy_over, TINY / "README.md"),
    "is too large": (damage.write_sparse, (1 << 26) + 1),
    "is a folder": (damage.make_folder,),
    "is a pipe": (damage.make_pipe,),
    "is a link to nothing": (damage.link_to, "nothing"),
    "is a link to itself": (lambda path: damage.link_to(path, path.name),),
    "is a link to a folder": (damage.link_to, "."),
    "is a link to an endless device": (damage.link_to, "/dev/zero"),
    "is a link to what cannot be read": (damage.link_to, "/proc/self/mem"),
}
EVERY = tuple(DAMAGES)
MOST = (
    "is empty",
    "is cut in the middle",
    "is cut by 3 bytes",
    "is random bytes",
    "is a secret",
    "is a secret in JSON",
    "is too large",
    "is a folder",
    "is a pipe",
    "is a link to nothing",
    "is a link to itself",
    "is a link to an endless device",
    "is a link to what cannot be read",
)
SOME = (
    "is cut in the middle",
    "is random bytes",
    "is a secret",
    "is a folder",
    "is a pipe",
    "is a link to nothing",
)

# Several JSON files are read by the same function, so not all of them need MOST of the damages.
READ = [
    ("safetensors", CONFIG, MOST),
    ("safetensors", MODULES, SOME),
    ("safetensors", LIMIT, SOME),
    ("safetensors", TOKENIZER, MOST),
    ("safetensors", POOLING, MOST),
    ("safetensors", SETTINGS, SOME),
    ("safetensors", DENSE, SOME),
    ("safetensors", WEIGHTS, EVERY),
    ("safetensors", DENSE_WEIGHTS, EVERY),
    ("bin", PICKLE, EVERY),
    ("bin", DENSE_PICKLE, EVERY),
    ("sharded", INDEX, SOME),
    ("sharded", SHARD, EVERY),
    ("sharded bin", PICKLE_INDEX, SOME),
    ("sharded bin", PICKLE_SHARD, EVERY),
    ("slow", TOKENIZER_CONFIG, MOST),
    ("slow", PIECES, EVERY),
]

# All keys of these files are optional, so a JSON object with other keys counts as an empty one.
ALL_OPTIONAL = (LIMIT, SETTINGS, TOKENIZER_CONFIG)

# These files are not read, because other files contain everything that is needed.
NOT_READ = [
    ("safetensors", "special_tokens_map.json"),
    ("safetensors", PIECES),
    ("safetensors", "README.md"),  # since include_prompt is false
    ("slow", "special_tokens_map.json"),
]

# The checkpoint, the missing file, and what the error must name.
MISSING = [
    ("safetensors", CONFIG, CONFIG),
    ("safetensors", MODULES, ""),
    ("safetensors", POOLING, POOLING),
    ("safetensors", DENSE, DENSE),
    ("safetensors", WEIGHTS, ""),
    ("safetensors", DENSE_WEIGHTS, ""),
    ("bin", PICKLE, ""),
    ("bin", DENSE_PICKLE, ""),
    ("sharded", INDEX, ""),
    ("sharded", SHARD, SHARD),
    ("sharded bin", PICKLE_INDEX, ""),
    ("sharded bin", PICKLE_SHARD, PICKLE_SHARD),
    ("slow", PIECES, ""),
]
MAY_BE_MISSING = [("safetensors", LIMIT), ("safetensors", TOKENIZER), ("slow", TOKENIZER_CONFIG)]


def cases():
    for checkpoint, file, error_names in MISSING:
        yield refusal(checkpoint, file, "is missing", Path.unlink, error_names=error_names)
    for checkpoint, file in MAY_BE_MISSING:
        yield acceptance(checkpoint, file, "is missing", Path.unlink)
    for checkpoint, file, damages in READ:
        for what in damages:
            outcome = acceptance if what == "is a secret in JSON" and file in ALL_OPTIONAL else refusal
            yield outcome(checkpoint, file, what, *DAMAGES[what])
    for checkpoint, file in NOT_READ:
        for what in ("is random bytes", "is a secret", "is too large"):
            yield acceptance(checkpoint, file, f"{what}, and not read", *DAMAGES[what])
    for file, other in permutations([file for checkpoint, file, _ in READ if checkpoint == "safetensors"], 2):
        is_object = other.endswith(".json") and other != MODULES
        outcome = acceptance if file in ALL_OPTIONAL and is_object else refusal
        yield outcome("safetensors", file, f"holds {other}", damage.copy_from_checkpoint, other)
