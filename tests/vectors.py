"""What a column of embeddings must hold."""

import numpy as np

TOLERANCE = 1e-5


def assert_embedded(texts, vectors, wanted):
    """Each text has the vector wanted for it, and null has null."""
    for text, vector, one in zip(texts, vectors, wanted, strict=True):
        if text is None:
            assert vector is None
        else:
            np.testing.assert_allclose(vector, one, atol=TOLERANCE, rtol=0, err_msg=ascii(text[:40]))
