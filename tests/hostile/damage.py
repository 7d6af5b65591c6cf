"""Ways to damage a file that several kinds of cases share. Each function takes the file's path first."""

import json
import os
import shutil

from .case import folder_around

NESTED_LIST = json.loads("[" * 900 + "]" * 900)


def cut_to(path, length):
    os.truncate(path, length)


def cut_off(path, length):
    os.truncate(path, path.stat().st_size - length)


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def write(path, content):
    """Replace the file with one that has this content, bytes or text."""
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_sparse(path, size):
    """Replace the file with a sparse one: zeros that take no space on the disk."""
    write(path, b"")
    os.truncate(path, size)


def make_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


def make_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link_to(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def link_around(path, name):
    """Replace the file with a link to something outside the checkpoint."""
    link_to(path, folder_around(path) / name)


def copy_over(path, source):
    shutil.copyfile(source, path)


def copy_from_checkpoint(path, file):
    """Replace the file's content with that of another file of the checkpoint."""
    shutil.copyfile(folder_around(path) / "checkpoint" / file, path)


def set_key(path, key, value):
    """Set a key of the file's JSON object; the value None removes the key."""
    content = {**json.loads(path.read_text("utf-8")), key: value}
    if value is None:
        del content[key]
    path.write_text(json.dumps(content), "utf-8")


def set_keys(path, changes):
    """Set keys of the file's JSON object; the value None is written as null."""
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
