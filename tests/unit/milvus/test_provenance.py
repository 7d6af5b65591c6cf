"""A collection stores which model embedded it."""

import pytest

from spark_instructor.milvus.provenance import check_collection_model, create_properties

MODEL = {"model": "m", "precision": "int8", "hash": "1"}
OTHER = {"model": "n", "precision": "float32", "hash": "2"}


def check(properties, provenance):
    check_collection_model({"collection_name": "c", "properties": properties}, provenance, "column 'v'", "Stop")


@pytest.mark.parametrize("properties", [None, {}, {"collection.ttl.seconds": "5"}, create_properties({})])
def test_a_collection_that_does_not_say_what_embedded_it(properties):
    check(properties, MODEL)


def test_a_collection_of_the_same_or_of_another_model():
    properties = create_properties(MODEL)
    check(properties, MODEL)
    check(properties, {})
    with pytest.raises(
        ValueError, match=r"^collection 'c' was embedded with m in int8, and column 'v' with n in float32; .* Stop$"
    ):
        check(properties, OTHER)
