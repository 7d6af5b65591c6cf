"""Links, and paths that should be folders but are not.

A link in a checkpoint may lead to any file that the reader can read, but no error may show that file's content.
"""

import os
import shutil
from pathlib import Path

from .case import acceptance, folder_around, refusal

CHECKPOINTS = ("safetensors", "bin", "sharded", "slow")


def cases():
    for checkpoint in CHECKPOINTS:
        yield acceptance(checkpoint, "", "has all files behind links", link_as_the_hub_does)
    yield acceptance("safetensors", "2_Dense", "is a link to another checkpoint's", link_folder, "../other/2_Dense")
    yield refusal("safetensors", "2_Dense", "is a link to itself", link_folder, "2_Dense")
    yield refusal("safetensors", "2_Dense", "is a file", make_file)
    yield refusal("safetensors", "", "is an empty folder", make_empty_folder)
    yield refusal("safetensors", "", "is a file", make_file)
    yield refusal("safetensors", "", "is missing", shutil.rmtree)
    yield acceptance("safetensors", "prepared.json", "is a folder", Path.mkdir)


def link_as_the_hub_does(folder):
    """Move every file out of the checkpoint and replace it with a link, as huggingface_hub does."""
    blobs = folder_around(folder) / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))


def link_folder(folder, target):
    shutil.rmtree(folder)
    folder.symlink_to(target)


def make_file(folder):
    shutil.rmtree(folder)
    folder.touch()


def make_empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()
