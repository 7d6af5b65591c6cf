"""Batches contain every sequence once, start with the longest, and stay within the token budget."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spark_instructor.encoder.batching import make_batches

LENGTHS = st.lists(st.integers(1, 600), max_size=200).map(lambda lengths: np.array(lengths, np.int64))


@given(LENGTHS, st.integers(1, 3000), st.none() | st.integers(1, 40))
def test_batches(lengths, max_tokens, batch_size):
    batches = list(make_batches(lengths, max_tokens, batch_size))
    order = np.concatenate([*batches, np.zeros(0, np.int64)]).astype(np.int64)
    assert sorted(order) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].sum() <= max_tokens
        assert batch_size is None or 1 <= len(batch) <= batch_size


@given(LENGTHS, st.integers(1, 3000))
def test_no_batch_could_take_one_more(lengths, max_tokens):
    batches = list(make_batches(lengths, max_tokens))
    for batch, following in pairwise(batches):
        assert lengths[batch].sum() + lengths[following[0]] > max_tokens


def test_equal_lengths_keep_their_order():
    assert [batch.tolist() for batch in make_batches(np.array([3, 5, 3, 5, 3]), 10)] == [[1, 3], [0, 2, 4]]
