"""Fixtures for the tests of the encoder."""

import random

import pytest


@pytest.fixture(scope="session")
def varied_texts(cases):
    """Return texts of 0 to about 900 tokens, not sorted by length."""
    words = " ".join(case["text"] for case in cases[:20]).split()
    draw = random.Random(7)
    lengths = [0, 1, 2, 400, 3, 9, 60, 130, 1, 25, 250, 40]
    return [" ".join(draw.choices(words, k=length)) for length in lengths]
