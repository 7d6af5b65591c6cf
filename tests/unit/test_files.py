"""How paths that users pass are interpreted."""

import errno
import os
from pathlib import Path

import pytest

from spark_instructor.encoder import prepare
from spark_instructor.files import can_map, escape_pattern, local_path


class TestLocalPath:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/models/a b", "/models/a b"),
            ("/models/a%20b", "/models/a%20b"),
            ("models/a", "models/a"),
            ("~/a", "/home/me/a"),
            ("~nobody-of-this-name/a", "~nobody-of-this-name/a"),
            ("file:models/a", "models/a"),
            ("file:/models/a b", "/models/a b"),
            ("file:///models/a%20b", "/models/a b"),
            ("file:///models/mod%C3%A8le", "/models/modèle"),
            ("file://localhost/models/a", "/models/a"),
            ("FILE:///models/a", "/models/a"),
            ("dbfs:/Volumes/main/a", "/Volumes/main/a"),
            ("dbfs:///Volumes/main/a", "/Volumes/main/a"),
            ("C:/models/a", "C:/models/a"),
            (Path("/models/a"), "/models/a"),
        ],
    )
    def test_taken(self, monkeypatch, path, expected):
        monkeypatch.setenv("HOME", "/home/me")
        assert local_path(path) == Path(expected)

    def test_dbfs_where_it_is_mounted(self, monkeypatch):
        with pytest.raises(ValueError, match=r"^dbfs:/models/x: this machine has no /dbfs, .* Mount it, or copy"):
            local_path("dbfs:/models/x")
        monkeypatch.setattr(os.path, "isdir", lambda path: path == "/dbfs")
        assert local_path("dbfs:/models/x") == Path("/dbfs/models/x")

    @pytest.mark.parametrize("scheme", ["s3", "s3a", "hdfs", "abfss", "gs", "https"])
    def test_refused(self, scheme):
        for path in (f"{scheme}://c@host/models/x", Path(f"{scheme}://host/x"), f"{scheme}:///x", f"{scheme}://host"):
            with pytest.raises(ValueError, match=rf"^{path}: a model is read .* {scheme}: is not .* Mount it, or copy"):
                local_path(path)

    def test_a_folder_taken_for_a_host(self):
        with pytest.raises(ValueError, match=r"^file://models/x names the host 'models'.*three slashes"):
            local_path("file://models/x")

    def test_prepare_makes_no_folder_of_a_uri(self, tiny, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=r"s3: is not a local file system"):
            prepare(tiny, into="s3://bucket/models")
        assert list(tmp_path.iterdir()) == []
        assert prepare(tiny.as_uri(), into=f"file:{tmp_path}/a%20b") == tmp_path / "a b"


def test_can_map(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert can_map(file)
    file.write_bytes(b"content")
    assert can_map(file)

    def refuse(*arguments, **options):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr("mmap.mmap", refuse)
    assert not can_map(file)


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        ("file:///models/run 1-a_b.c", "file:///models/run 1-a_b.c"),
        ("run[1]", r"run\[1\]"),
        ("run{a,b}", r"run\{a,b\}"),
        ("run*?", r"run\*\?"),
        ("a\\b", r"a\\b"),
    ],
)
def test_escape_pattern(path, escaped):
    assert escape_pattern(path) == escaped
