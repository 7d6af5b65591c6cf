"""What a column of embeddings must hold."""

import numpy as np

TOLERANCE = 1e-5
"""What float32 may differ by from batch to batch, in each number of a unit vector."""


def assert_embedded(model, instruction, texts, vectors):
    """Each text has the vector that the encoder gives it, and null has null."""
    wanted = model.encode(instruction, [text or "" for text in texts])
    for text, vector, one in zip(texts, vectors, wanted, strict=True):
        if text is None:
            assert vector is None
        else:
            np.testing.assert_allclose(vector, one, atol=TOLERANCE, rtol=0, err_msg=ascii(text[:40]))
