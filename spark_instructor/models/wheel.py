"""A prepared model as a wheel, which pip installs on the driver and on the workers."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path
from typing import BinaryIO

from .installed import ENTRY_POINTS, PACKAGED, to_installed_name
from .prepared import FORMAT_VERSION, PreparedModel
from .publishing import publish_file
from .registry import LICENSES, MODEL_CARD

_METADATA = """\
Metadata-Version: 2.4
Name: {distribution}
Version: {version}
Summary: {model.name} in {model.precision}, prepared for spark_instructor
Requires-Dist: spark-instructor-embeddings
"""
_WHEEL = """\
Wheel-Version: 1.0
Generator: spark-instructor
Root-Is-Purelib: true
Tag: py3-none-any
"""


def build_wheel(model: PreparedModel, checkpoint: Path, output: Path) -> Path:
    """Write a prepared model as a wheel into the folder ``output`` and return the path of the wheel.

    The wheel also contains the model card and the license files of the checkpoint, if there are any.

    The version of the wheel consists of the format version, the precision and the content hash, so pip replaces one
    model by another. The same model always gives the same bytes. Nothing is compressed.

    Raises ValueError for instructor_tiny, which is installed with spark_instructor, and for a model whose wheel would
    have the name of spark_instructor's own.
    """
    name = to_installed_name(model.name)
    if name == PACKAGED.name:
        raise ValueError(f"{name} comes with spark-instructor-embeddings, so it needs no wheel")
    if name == "embeddings":
        raise ValueError(
            f"a wheel of {model.name!r} would replace spark-instructor-embeddings itself; rename the model's folder"
        )
    package = f"spark_instructor_{name}"
    version = f"{FORMAT_VERSION}+{model.precision}.sha{model.content_hash[:12]}"
    dist_info = f"{package}-{version}.dist-info"
    metadata = _METADATA.format(distribution=package.replace("_", "-"), version=version, model=model)
    contents: dict[str, Path | str] = {f"{package}/{path.name}": path for path in model.paths}
    contents[f"{package}/__init__.py"] = f'"""{model.name} in {model.precision}, prepared for spark_instructor."""\n'
    if (checkpoint / MODEL_CARD).is_file():
        contents[f"{package}/{MODEL_CARD}"] = checkpoint / MODEL_CARD
    for path in sorted(path for pattern in LICENSES for path in checkpoint.glob(pattern)):
        contents[f"{dist_info}/licenses/{path.name}"] = path
        metadata += f"License-File: {path.name}\n"
    contents[f"{dist_info}/METADATA"] = metadata
    contents[f"{dist_info}/WHEEL"] = _WHEEL
    contents[f"{dist_info}/entry_points.txt"] = f"[{ENTRY_POINTS}]\n{name} = {package}\n"

    wheel = output / f"{package}-{version}-py3-none-any.whl"
    record = f"{dist_info}/RECORD"
    with publish_file(wheel) as new, zipfile.ZipFile(new, "w") as archive:
        lines = [_add(archive, name, content) for name, content in contents.items()]
        _add(archive, record, "".join([*lines, f"{record},,\n"]))
    return wheel


def _add(archive: zipfile.ZipFile, name: str, content: Path | str) -> str:
    """Add a file to a wheel and return its line for RECORD."""
    entry = zipfile.ZipInfo(name)  # its date is always 1980-01-01
    entry.external_attr = 0o644 << 16
    sha256, size = hashlib.sha256(), 0
    # The weights may have more than the 2 GiB that zipfile assumes of a stream.
    with _open(content) as source, archive.open(entry, "w", force_zip64=True) as target:
        while block := source.read(1 << 22):
            target.write(block)
            sha256.update(block)
            size += len(block)
    digest = base64.urlsafe_b64encode(sha256.digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{size}\n"


def _open(content: Path | str) -> BinaryIO:
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content.encode())
