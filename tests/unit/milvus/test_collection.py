"""A collection is created, gets its index and is loaded, even if other writers do the same at the same time."""

import json

import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from pyspark.sql.types import ArrayType, FloatType, LongType, StructType

from spark_instructor.milvus.collection import create_collection, make_searchable

COLUMNS = StructType().add("id", LongType()).add("vector", ArrayType(FloatType()))
MODEL = {"model": "m", "precision": "int8", "hash": "1"}


class FakeClient:
    """A client of a server on which another writer may be a moment ahead: then it has what we want to create."""

    create_schema = staticmethod(MilvusClient.create_schema)
    prepare_index_params = staticmethod(MilvusClient.prepare_index_params)

    def __init__(self, is_behind=False, is_broken=False):
        self.is_behind, self.is_broken = is_behind, is_broken
        self.collections, self.indexes, self.loaded = {}, [], []

    def has_collection(self, name):
        return name in self.collections

    def create_collection(self, name, schema, properties):
        if not self.is_broken:
            self.collections[name] = [field.name for field in schema.fields], properties
        if self.is_behind or self.is_broken:
            raise MilvusException(1, "already exists")

    def list_indexes(self, name, field_name):
        return self.indexes

    def create_index(self, name, index_params):
        if not self.is_broken:
            self.indexes += [(name, params.to_dict()) for params in index_params]
        if self.is_behind or self.is_broken:
            raise MilvusException(65535, "at most one distinct index is allowed per field")

    def load_collection(self, name):
        self.loaded.append(name)


@pytest.mark.parametrize("is_behind", [False, True])
def test_create(is_behind):
    client = FakeClient(is_behind)
    create_collection(client, "c", COLUMNS, 2, "FLOAT_VECTOR", MODEL)
    assert client.collections == {"c": (["id", "vector"], {"spark_instructor": json.dumps(MODEL)})}


@pytest.mark.parametrize("is_behind", [False, True])
def test_index_parameters_reach_milvus(is_behind):
    client = FakeClient(is_behind)
    index = {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}
    for _ in range(2):  # the second call finds the index
        make_searchable(client, "c", "vector", index)
    expected = {"field_name": "vector", "index_name": "", "index_type": "HNSW", "metric_type": "L2"}
    assert client.indexes == [("c", {**expected, "M": 8, "efConstruction": 64})]
    assert client.loaded == ["c", "c"]


def test_what_fails_for_another_reason():
    client = FakeClient(is_broken=True)
    with pytest.raises(MilvusException):
        create_collection(client, "c", COLUMNS, 2, "FLOAT_VECTOR", MODEL)
    with pytest.raises(MilvusException):
        make_searchable(client, "c", "vector", {"index_type": "HNSW", "metric_type": "L2", "params": {}})
    assert not client.loaded
