"""A folder that behaves like a mount of an object store through FUSE, for Python processes; see refusing_mount.c."""

import shutil
import subprocess
from pathlib import Path

import pytest
from processes import run_python

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


class RefusingMount:
    """A folder in which the processes that `run` starts cannot map, append to or rename; see refusing_mount.c."""

    def __init__(self, folder):
        self.path = folder / "mount"
        self.path.mkdir()
        self._folder = folder
        self._library = folder / "refusing_mount.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self._library, source, "-ldl"], check=True)

    def run(self, code, *arguments, **environment):
        """Run Python code with ``mount``, a Path, and return what it printed."""
        preamble = "import os, sys; from pathlib import Path; mount = Path(os.environ['REFUSING_MOUNT'])\n"
        return run_python(
            *("-c", preamble + code, *arguments),
            cwd=self._folder,
            LD_PRELOAD=self._library,
            REFUSING_MOUNT=self.path,
            **environment,
        )

    def list_files(self):
        """List the files below the mount by their relative paths."""
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()}
