"""What a column of embeddings must hold."""

import numpy as np

TOLERANCE = 1e-5
"""What float32 may differ by from batch to batch, in each number of a unit vector."""


def assert_close(found, wanted, message=""):
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0, err_msg=message)


def assert_embedded(model, instruction, texts, vectors):
    """Each text has the vector that the encoder gives it, and null has null."""
    wanted = model.encode(instruction, [text or "" for text in texts])
    for text, vector, one in zip(texts, vectors, wanted, strict=True):
        if text is None:
            assert vector is None
        else:
            assert_close(vector, one, ascii(text[:40]))
