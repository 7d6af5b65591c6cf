"""Keeping a Delta or Iceberg table of vectors up to date: only what is new or has changed is embedded, then merged."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from itertools import dropwhile

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from .columns import column, quote_name
from .fingerprints import (
    FINGERPRINT,
    Changes,
    add_fingerprint,
    check_columns,
    check_keys,
    compare,
    count_changes,
    find_different_columns,
    join_fingerprints,
    list_keys,
    match_keys,
    select_old_keys,
    select_stale,
)
from .incremental import count_tasks
from .provenance import PROVENANCE, get_provenance
from .stages.embeddings import InstructorEmbeddings

_UNMERGED = "_unmerged"
_WITHOUT_MERGE = {"avro", "csv", "hive", "jdbc", "json", "orc", "parquet", "text"}
_ROWS_PER_PART = 10_000  # so that a stream's small batch takes one commit
_MAX_PARTS = 16


def embed_table(
    source: DataFrame,
    table: str,
    key: str | Sequence[str],
    stage: InstructorEmbeddings,
    *,
    provider: str | None = None,
    delete_absent: bool = False,
) -> Changes:
    """Bring a table of vectors up to date, and return how many rows were new, changed, unchanged and absent.

    The table has the columns of the source, the output of the stage and `FINGERPRINT`. Any format works if its tables
    support MERGE in Spark, as those of Delta and Iceberg do. The vectors first go into a table beside it, whose name
    ends with ``_unmerged``, in up to 16 commits; one MERGE adds them to the table, and the table beside it is dropped.
    Therefore no text is embedded twice, a call after a kill embeds only what is left, and a call after success embeds
    nothing. A row whose fingerprint is unchanged keeps the old values of its other columns. Only one call at a time
    may write to a table. The source is read once per commit, so it must return the same rows each time.

    The table's property ``spark_instructor`` says as JSON which model embedded it, since some formats do not keep the
    metadata of columns.

    Args:
        source: The rows, each with a text; in a stream, those of ``foreachBatch``.
        table: Name of the table, such as ``"catalog.schema.table"``. It is created if it does not exist.
        key: Name of the column that identifies a row, or names of several.
        stage: An `InstructorEmbeddings` that embeds one string column.
        provider: Format of a new table, such as ``"delta"`` or ``"iceberg"``. None takes the default of the catalog.
        delete_absent: Delete the rows that only the table has. The source must then be complete.

    Raises ValueError, before anything is embedded, if Spark cannot create the table or merge rows into it, and for the
    same reasons as `embed_changes`.
    """
    keys = list_keys(key)
    model = stage.prepare_model()
    spark = source.sparkSession
    wanted = add_fingerprint(source, stage, model, keys)
    check_keys(source, keys, "the source")
    embedded = stage.transform(wanted)
    _create_table(embedded, table, provider)
    spark.sql(f"REFRESH TABLE {table}")  # another session may have written to it
    before = spark.table(table)
    check_columns(before, embedded, table)
    check_keys(before, keys, table)

    deleted = _delete_absent(wanted, before, table, keys) if delete_absent else 0
    before = spark.table(table)  # without the deleted rows
    counts = count_changes(compare(wanted, before, keys), F.lit(0), stage, model, table).get(0, Counter[str]())
    rows = counts["new"] + counts["changed"]
    unmerged = _name_unmerged(table)
    if rows:
        added = embedded.columns[len(wanted.columns) :]
        _embed(select_stale(wanted, before, keys), rows, unmerged, _read_provider(spark, table), keys, stage, added)
        vectors = spark.table(unmerged)
        merged = join_fingerprints(wanted, vectors, keys, "inner", *map(column, added))
        merged = merged.select(*map(column, embedded.columns))
        _merge(merged, table, keys, "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *")
    _drop(spark, unmerged)
    _write_provenance(embedded, table, stage)
    return Changes(**{**counts, "absent": counts["absent"] + deleted})


def read_table(spark: SparkSession, table: str) -> DataFrame | None:
    """Return the rows of a table, or None if it does not exist.

    Raises ValueError if Spark does not know its catalog.
    """
    return spark.table(table) if _exists(spark, table) else None


def _create_table(rows: DataFrame, table: str, provider: str | None) -> None:
    """Create a table with the columns of the rows and without rows, unless it exists.

    Raises ValueError if Spark cannot create it or merge rows into it, or if its format changes the type of a column.
    """
    spark = rows.sparkSession
    is_new = not _exists(spark, table)
    if is_new:
        writer = rows.limit(0).writeTo(table)
        try:
            (writer.using(provider) if provider else writer).create()
        except Exception as error:  # its class depends on the kind of session
            if not isinstance(error, AnalysisException) and "DATA_SOURCE_NOT_FOUND" not in str(error):
                raise
            raise ValueError(_describe_no_table(table, error)) from error
    elif "VIEW" in (kind := spark.catalog.getTable(table).tableType or "") or kind == "TEMPORARY":
        raise ValueError(f"{table} is a view, and Spark cannot merge rows into a view. Name its table.")
    found = _read_provider(spark, table)
    if found in _WITHOUT_MERGE:
        if is_new:
            _drop(spark, table)
        raise ValueError(
            f"{table} is a table of format {found}, and Spark cannot merge rows into it. For a new table, name a "
            "provider such as delta or iceberg; for a folder of Parquet files, use embed_changes."
        )
    if is_new and (changed := find_different_columns(spark.table(table), rows)):
        _drop(spark, table)
        raise ValueError(
            f"a table of format {found} does not keep the type of these columns: {', '.join(changed)}. Cast them to a "
            "type that it has, such as int for tinyint; for vectors, set another outputType."
        )


def _read_provider(spark: SparkSession, table: str) -> str | None:
    """Return the format of a table in lower case, or None if its catalog does not say."""
    rows = spark.sql(f"DESCRIBE TABLE EXTENDED {table}").collect()
    details = dropwhile(lambda row: row["col_name"] != "# Detailed Table Information", rows)  # after the columns
    return next((row["data_type"].lower() for row in details if row["col_name"] == "Provider"), None)


def _delete_absent(wanted: DataFrame, before: DataFrame, table: str, keys: list[str]) -> int:
    """Delete the rows that only the table has, and return their number."""
    wanted_keys = select_old_keys(wanted, keys)
    absent = before.select(*map(column, keys)).join(wanted_keys, match_keys(keys), "left_anti")
    count = absent.count()
    if count:
        _merge(absent, table, keys, "WHEN MATCHED THEN DELETE")
    return count


def _name_unmerged(table: str) -> str:
    """Return the name of the table beside a table; the last part of the name may be in backticks."""
    return table[:-1] + _UNMERGED + "`" if table.endswith("`") else table + _UNMERGED


def _embed(
    stale: DataFrame,
    rows: int,
    unmerged: str,
    provider: str | None,
    keys: list[str],
    stage: InstructorEmbeddings,
    added: list[str],
) -> None:
    """Embed the stale rows that ``unmerged`` lacks, and append to it their keys, fingerprints and ``added`` columns."""
    spark = stale.sparkSession

    def embed(rows: DataFrame) -> DataFrame:
        return stage.transform(rows).select(*map(column, [*keys, FINGERPRINT, *added]))

    # What a killed call has left there may be from another source or stage.
    if _exists(spark, unmerged) and find_different_columns(spark.table(unmerged), embed(stale)):
        _drop(spark, unmerged)
    _create_table(embed(stale), unmerged, provider)
    spark.sql(f"REFRESH TABLE {unmerged}")
    todo = join_fingerprints(stale, spark.table(unmerged), keys, "left_anti")
    parts = min(-(-rows // _ROWS_PER_PART), _MAX_PARTS)
    for part in range(parts):
        of_part = todo.where(F.pmod(F.xxhash64(FINGERPRINT), F.lit(parts)) == part)
        embed(of_part.repartition(count_tasks(rows // parts))).writeTo(unmerged).append()


def _merge(rows: DataFrame, table: str, keys: list[str], clauses: str) -> None:
    spark = rows.sparkSession
    view = f"spark_instructor_{uuid.uuid4().hex}"
    match = " AND ".join(f"target.{name} = source.{name}" for name in map(quote_name, keys))
    rows.createOrReplaceTempView(view)
    try:
        spark.sql(f"MERGE INTO {table} AS target USING {view} AS source ON {match} {clauses}")
    finally:
        spark.catalog.dropTempView(view)


def _write_provenance(embedded: DataFrame, table: str, stage: InstructorEmbeddings) -> None:
    """Write which model embedded the vectors into the properties of the table, unless they say so already."""
    (output,) = stage.list_outputs()
    provenance = json.dumps(get_provenance(embedded.schema[output].metadata))
    properties = embedded.sparkSession.sql(f"SHOW TBLPROPERTIES {table}").collect()
    if {row["key"]: row["value"] for row in properties}.get(PROVENANCE) != provenance:
        text = provenance.replace("\\", "\\\\").replace("'", "\\'")
        embedded.sparkSession.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('{PROVENANCE}' = '{text}')")


def _exists(spark: SparkSession, table: str) -> bool:
    try:
        return spark.catalog.tableExists(table)
    except AnalysisException as error:
        if "DELTA_MISSING_DELTA_TABLE" not in str(error):
            raise ValueError(_describe_no_table(table, error)) from error
        return False  # of a path, Delta 4 says so in this way


def _describe_no_table(table: str, error: Exception) -> str:
    found = re.search(r"\[[A-Z]+(_[A-Z]+)+\] [^\n]*", str(error))
    reason = (found[0] if found else str(error)).rstrip(".")
    return (
        f"Spark cannot find or create the table {table}: {reason}. If this session has no Delta or Iceberg, start "
        "it with their jars, extension and catalog, on the command line by spark-submit with --packages and --conf; "
        "docs/incremental.md shows how"
    )


def _drop(spark: SparkSession, table: str) -> None:
    if _exists(spark, table):
        spark.sql(f"DROP TABLE {table}")
        if _exists(spark, table):  # Delta does not drop a table that is named by its path
            spark.sql(f"DELETE FROM {table}")
