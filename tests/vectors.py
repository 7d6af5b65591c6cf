"""Assertions on vectors, shared by many tests."""

import numpy as np

TOLERANCE = 1e-5
"""How much each number of a float32 unit vector may vary with the batch it was computed in."""


def assert_close(actual, expected, message=""):
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0, err_msg=message)


def assert_embedded(model, instruction, texts, vectors):
    """Assert that each text has the vector that the encoder computes for it, and that a null text has a null vector."""
    expected_vectors = model.encode(instruction, [text or "" for text in texts])
    for text, vector, expected in zip(texts, vectors, expected_vectors, strict=True):
        if text is None:
            assert vector is None
        else:
            assert_close(vector, expected, ascii(text[:40]))
