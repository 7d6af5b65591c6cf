"""Keeping a Parquet folder of vectors up to date: only what is new or has changed is embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from .columns import check_new_columns, column, find_field
from .files import escape_pattern
from .fingerprints import (
    FINGERPRINT,
    OLD_PREFIX,
    Changes,
    add_fingerprint,
    check_columns,
    check_keys,
    compare,
    count_changes,
    list_keys,
    match_keys,
    select_old_keys,
    select_stale,
)
from .models.shipping import is_connect
from .stages.embeddings import InstructorEmbeddings
from .stages.params import AtLeast

PART = "part"
"""Name of the target's partition column: the hash of the key modulo the number of parts."""

# An overwrite replaces only the parts that it has rows of. An append commits each task on its own: with version 1 of
# the committer, the finished tasks of a killed job stay in a folder from which the next job commits them as its own,
# so rows come twice. Version 2 is unsafe only if a second attempt gives its files other names, and Spark does not.
_WRITE_OPTIONS = {"partitionOverwriteMode": "dynamic", "mapreduce.fileoutputcommitter.algorithm.version": "2"}

_OLD_PART = OLD_PREFIX + PART
_ROWS_PER_JOB = 10_000
_ROWS_PER_TASK = 2000  # a file of some megabytes
_MIN_TASKS = 16  # so that even a few rows use the whole cluster and move a progress bar


def embed_changes(
    source: DataFrame, target: str, key: str | Sequence[str], stage: InstructorEmbeddings, parts: int = 16
) -> Changes:
    """Bring a Parquet folder of vectors up to date, and return how many rows were new, changed, unchanged and absent.

    The target has the columns of the source, the output of the stage, `FINGERPRINT` and `PART`. A separate job writes
    each part, but one job appends up to about 10,000 rows to several parts. Finished tasks of a killed job are kept.
    Therefore a second call after a kill embeds only what is left, and a second call after success embeds nothing. New
    rows are appended to their part; a part with a changed row is rewritten. A row whose fingerprint is unchanged keeps
    the old values of its other columns. Only one call at a time may write to a target. Each job reads the source, so it
    must return the same rows each time.

    Args:
        source: The rows, each with a text.
        target: Path or URI of the Parquet folder. It is created with the first rows if it does not exist.
        key: Name of the column that identifies a row, or names of several.
        stage: An `InstructorEmbeddings` that embeds one string column.
        parts: Number of parts of a new target. With more parts a kill loses less work; with fewer parts the source is
            read less often.

    Raises ValueError, before anything is embedded, if the key is null or not unique in the source or in the target; if
    another function wrote the target or it has other columns; and if rows that only the target has were embedded with
    another model, since vectors of different models cannot be compared, or with another instruction than the stage has
    for all rows. Also raises what `InstructorEmbeddings.transform` raises.
    """
    parts = AtLeast("parts", 1)(parts)
    keys = list_keys(key)
    model = stage.prepare_model()
    before = read_target(source.sparkSession, target)
    if before is not None:
        parts = before.schema[FINGERPRINT].metadata["parts"]
    wanted = _assign_parts(add_fingerprint(source, stage, model, keys), keys, parts)
    if before is None:
        before = stage.transform(wanted.where(F.lit(False)))
    else:
        check_columns(before, stage.transform(wanted), target)
        check_keys(before, keys, target)
    check_keys(source, keys, "the source")

    compared = compare(wanted, before, keys, F.col(PART).alias(_OLD_PART))
    counts = count_changes(compared, F.coalesce(PART, _OLD_PART), stage, model, target)
    for mode, job_parts in _plan_jobs(counts):
        of_job = F.col(PART).isin(job_parts)
        job_wanted, job_before = (df.where(of_job) for df in (wanted, before))
        if mode == "overwrite":
            todo = select_stale(job_wanted, job_before, keys)
            kept = job_before.join(select_old_keys(todo, keys), match_keys(keys), "left_anti")
        else:
            # A row that has changed since it was counted is left out here; the next call replaces it.
            todo = job_wanted.join(select_old_keys(job_before, keys), match_keys(keys), "left_anti")
            kept = job_before.where(F.lit(False))
        rows = sum(counts[part]["new"] + counts[part]["changed"] for part in job_parts)
        result = stage.transform(todo.repartition(count_tasks(rows))).unionByName(kept)
        result = result.select(*map(column, before.columns))  # the names of the target, if they differ by case
        result.write.mode(mode).options(**_WRITE_OPTIONS).partitionBy(PART).parquet(target)
    return Changes(**sum(counts.values(), Counter[str]()))


def _plan_jobs(counts: dict[int, Counter[str]]) -> list[tuple[str, list[int]]]:
    """Return for each job the mode of writing and the parts to write, given the counts of each part.

    A part with a changed row is replaced by a job of its own, because rows can be lost if a kill hits the moment in
    which Spark replaces it. New rows are appended to several parts at once if they are few, because each job reads the
    source.
    """
    changed = [part for part, count in sorted(counts.items()) if count["changed"]]
    appended = [part for part, count in sorted(counts.items()) if count["new"] and not count["changed"]]
    rows = sum(counts[part]["new"] for part in appended)
    parts_per_job = max(len(appended) * _ROWS_PER_JOB // max(rows, 1), 1)
    jobs = [("overwrite", [part]) for part in changed]
    return jobs + [("append", appended[i : i + parts_per_job]) for i in range(0, len(appended), parts_per_job)]


def count_tasks(rows: int) -> int:
    """Return the number of tasks in which to embed so many rows."""
    return min(max(rows // _ROWS_PER_TASK, _MIN_TASKS), max(rows, 1))


def open_file_system(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return Hadoop's objects for the file system of a path and for the path, on a classic session."""
    hadoop_path = spark._jvm.org.apache.hadoop.fs.Path(path)  # type: ignore[union-attr]
    return hadoop_path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), hadoop_path


def read_target(spark: SparkSession, target: str) -> DataFrame | None:
    """Read the target; return None if it does not exist, or if a first run was killed before it wrote a part."""
    if not is_connect(spark):  # Spark would log a warning with a stack trace of a hundred lines
        file_system, path = open_file_system(spark, target)
        if not file_system.exists(path):
            return None
    try:
        before = spark.read.parquet(escape_pattern(target))
        schema = before.schema
    except AnalysisException as error:
        if "PATH_NOT_FOUND" in str(error) or "UNABLE_TO_INFER_SCHEMA" in str(error):
            return None
        raise
    except Exception as error:  # its class depends on the kind of session
        if "CANNOT_READ_FILE_FOOTER" not in str(error):
            raise
        raise ValueError(
            f"{target} was not written by embed_changes: it contains a file that is not Parquet, or a damaged one. "
            "Name a new folder, or one that embed_changes wrote."
        ) from error
    if FINGERPRINT not in schema.names or PART not in schema.names:
        raise ValueError(
            f"{target} was not written by embed_changes: it has no columns {FINGERPRINT!r} and {PART!r}. "
            "Name a new folder, or one that embed_changes wrote."
        )
    if "parts" not in schema[FINGERPRINT].metadata:
        raise ValueError(
            f"{target} was rewritten by something that lost the metadata of its column {FINGERPRINT!r}, and with it "
            "the number of parts. Write to a new folder, or restore the old one."
        )
    return before.withColumn(PART, F.col(PART).cast("int"))  # Spark may be configured to read it as a string


def _assign_parts(wanted: DataFrame, keys: list[str], parts: int) -> DataFrame:
    """Add to each row the part that its key belongs to; the metadata of the fingerprint keeps the number of parts.

    Strings that are equal under a collation may have different hashes, so only the other columns of the key count. If
    there are none, all rows are in one part.
    """
    check_new_columns(wanted, [PART], "the source")
    hashable = [column(name) for name in keys if not _is_collated(wanted, name)]
    part = F.pmod(F.xxhash64(*hashable or [F.lit(0)]), F.lit(parts)).cast("int")
    columns = [column(name) for name in wanted.columns if name != FINGERPRINT]
    return wanted.select(*columns, F.col(FINGERPRINT).alias(FINGERPRINT, metadata={"parts": parts}), part.alias(PART))


def _is_collated(rows: DataFrame, name: str) -> bool:
    """Return whether a column contains strings under another collation than the binary one."""
    return " collate " in find_field(rows, name, "the source").dataType.simpleString()
