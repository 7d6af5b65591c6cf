"""Paths that users pass."""

import pytest

from spark_instructor.files import escape_pattern


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
