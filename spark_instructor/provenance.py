"""What made a column of vectors, noted in the column's metadata, which Parquet keeps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .stages.annotation import column

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from .stages.embeddings import InstructorEmbeddings

_MADE_BY = "spark_instructor"


def with_provenance(embedded: DataFrame, stage: InstructorEmbeddings) -> DataFrame:
    """Note in the metadata of a stage's output column its model, revision, precision, instruction and hash."""
    name = stage.getOutputCol()
    made_by = {
        "model": stage.getModel(),
        "revision": stage.getRevision(),
        "precision": stage.getPrecision(),
        "instruction": stage.getInstruction(),
        "hash": stage._prepared().hash,
    }
    metadata = {**embedded.schema[name].metadata, _MADE_BY: {key: value for key, value in made_by.items() if value}}
    columns = [column(one).alias(name, metadata=metadata) if one == name else column(one) for one in embedded.columns]
    return embedded.select(*columns)


def provenance(schema: pa.Schema, vector_col: str) -> dict[str, str]:
    """What `with_provenance` noted of a column in Parquet that Spark wrote; empty where it did not."""
    of_spark = (schema.metadata or {}).get(b"org.apache.spark.sql.parquet.row.metadata", b'{"fields": []}')
    metadata = {field["name"]: field["metadata"] for field in json.loads(of_spark)["fields"]}
    made_by: dict[str, str] = metadata.get(vector_col, {}).get(_MADE_BY, {})
    return made_by
