"""Fixtures for the tests of the encoder."""

import random

import pytest

from spark_instructor.encoder import cpu


@pytest.fixture(scope="session")
def varied_texts(cases):
    """Return texts of 0 to about 900 tokens, not sorted by length."""
    words = " ".join(case["text"] for case in cases[:20]).split()
    draw = random.Random(7)
    lengths = [0, 1, 2, 400, 3, 9, 60, 130, 1, 25, 250, 40]
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


@pytest.fixture(params=["AMX", "bfloat16", "neither"])
def processor(request, monkeypatch):
    """Run the test as on CPUs with AMX, with instructions for bfloat16 but without AMX, and with neither.

    All of the kernels run on every CPU; they are only slower on some.
    """
    monkeypatch.setattr(cpu, "has_amx", lambda: request.param == "AMX")
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: request.param != "neither")
    return request.param
