"""What the encoder's tests share: the golden checkpoint, loaded, and texts of very different lengths."""

import random

import pytest

from spark_instructor.encoder import InstructorModel


@pytest.fixture(scope="session")
def model(tiny):
    return InstructorModel.from_pretrained(tiny)


@pytest.fixture(scope="session")
def varied_texts(cases):
    """Texts of 0 to about 900 tokens, in no order of length."""
    words = " ".join(case["text"] for case in cases[:20]).split()
    draw = random.Random(7)
    lengths = [0, 1, 2, 400, 3, 9, 60, 130, 1, 25, 250, 40]
    return [" ".join(draw.choices(words, k=length)) for length in lengths]
