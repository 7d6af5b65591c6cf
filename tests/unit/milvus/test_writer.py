"""Checking a collection before a job has the same defaults as the job."""

from inspect import signature

from spark_instructor.milvus.writer import prepare_collection, write_to_milvus


def test_defaults():
    defaults = {name: parameter.default for name, parameter in signature(write_to_milvus).parameters.items()}
    for name, parameter in signature(prepare_collection).parameters.items():
        assert parameter.default == defaults[name], name
