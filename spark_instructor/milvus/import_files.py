"""Writing Parquet files in the layout that Milvus' bulk import reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation
from pyspark.sql import functions as F

from ..columns import column
from ..udf import on_executor
from .requests import WriteCounts
from .rows import RowCheck

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# The import converts nothing, so a column gets exactly the type of its field.
_SQL_TYPES = {
    "BOOL": "boolean",
    "DOUBLE": "double",
    "FLOAT": "float",
    "FLOAT_VECTOR": "array<float>",
    "INT8": "tinyint",
    "INT16": "smallint",
    "INT32": "int",
    "INT64": "bigint",
    "VARCHAR": "string",
}
_ROW_GROUP_BYTES = 1 << 25  # as in the files that pymilvus writes; a server holds whole row groups in memory


def write_import_files(rows: DataFrame, fields: Mapping[str, Any], check: RowCheck, import_folder: str) -> WriteCounts:
    """Write the rows of `write_to_milvus` to a new folder of Parquet files, one per partition, from the executors.

    Raises ValueError if a column has no field of its own, or one that Spark's Parquet files cannot fill.
    """
    for name in rows.columns:
        if name not in fields or fields[name]["type"].name not in _SQL_TYPES:
            kind = fields[name]["type"].name if name in fields else "a dynamic field"
            raise ValueError(
                f"write_to_milvus: Spark cannot write column {name!r} to files for import, because it goes to {kind}. "
                "Leave out import_folder or the column"
            )
    rows = rows.select(*(column(name).cast(_SQL_TYPES[fields[name]["type"].name]) for name in rows.columns))
    key, vector = (column(name) for name in rows.columns[:2])
    before, after = Observation(), Observation()
    is_null = key.isNull() | vector.isNull()
    observed = rows.observe(before, F.count(F.lit(1)).alias("rows"), F.count(F.when(is_null, 1)).alias("nulls"))
    valid = observed.mapInArrow(on_executor("milvus.requests.check_batches", dataclasses.asdict(check)), rows.schema)
    valid = valid.observe(after, F.count(F.lit(1)).alias("written"))
    valid.write.option("parquet.block.size", _ROW_GROUP_BYTES).parquet(import_folder)
    written, nulls = after.get["written"], before.get["nulls"]
    return WriteCounts(written=written, nulls=nulls, invalid=before.get["rows"] - nulls - written)
