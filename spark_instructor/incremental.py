"""Keeping a table of vectors up to date: only what is new or has changed is embedded."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from .columns import check_new_columns, check_type, column, find_field, is_same_type, match_names, read_column
from .files import escape_pattern
from .models.prepared import PreparedModel
from .models.shipping import is_connect
from .stages.embeddings import InstructorEmbeddings
from .vectors import OUTPUT_TYPE

FINGERPRINT = "fingerprint"
"""Name of the column that identifies what determined a row's vector: the model's hash and a hash of all the rest."""
PART = "part"
"""Name of the target's partition column: the hash of the key modulo the number of parts."""

# An overwrite replaces only the parts that it has rows of. An append commits each task on its own: with version 1 of
# the committer, the finished tasks of a killed job stay in a folder from which the next job commits them as its own,
# so rows come twice. Version 2 is unsafe only if a second attempt gives its files other names, and Spark does not.
_WRITE_OPTIONS = {"partitionOverwriteMode": "dynamic", "mapreduce.fileoutputcommitter.algorithm.version": "2"}

_PREFIX = f"__{uuid.uuid4().hex}_"  # no source has a column with this name
_KIND, _OLD_FINGERPRINT, _OLD_PART, _OLD_KEY = (_PREFIX + name for name in ("kind", "fingerprint", "part", "key"))
_ROWS_PER_TASK = 2000  # a file of some megabytes
_MIN_TASKS = 16  # so that even a few rows use the whole cluster and move a progress bar


@dataclasses.dataclass(frozen=True)
class Changes:
    """Numbers of rows that `embed_changes` found."""

    new: int = 0
    """Rows that were embedded because the target had no row with their key."""
    changed: int = 0
    """Rows that were embedded again because the text, the instruction, the model, its precision or a limit changed."""
    unchanged: int = 0
    """Rows that stayed as they were."""
    absent: int = 0
    """Rows that only the target has. They stay there, since the source need not be complete."""


def embed_changes(
    source: DataFrame, target: str, key: str | Sequence[str], stage: InstructorEmbeddings, parts: int = 16
) -> Changes:
    """Bring a Parquet folder of vectors up to date, and return how many rows were new, changed, unchanged and absent.

    The target has the columns of the source, the output of the stage, `FINGERPRINT` and `PART`. A separate job writes
    each part. Therefore a second call after a kill embeds only what is left, and a second call after success embeds
    nothing. New rows are appended to their part; a part with a changed row is rewritten. Only one call at a time may
    write to a target. The source is read once per part, so it must return the same rows each time.

    Args:
        source: The rows, each with a text.
        target: Path or URI of the Parquet folder. It is created if it does not exist.
        key: Name of the column that identifies a row, or names of several.
        stage: An `InstructorEmbeddings` that embeds one string column.
        parts: Number of parts of a new target. With more parts a kill loses less work; with fewer parts the source is
            read less often.

    Raises ValueError, before anything is embedded, if the key is null or not unique in the source or in the target; if
    another function wrote the target or it has other columns; and if rows that only the target has were embedded with
    another model, since vectors of different models cannot be compared, or with another instruction than the stage has
    for all rows. Also raises what `InstructorEmbeddings.transform` raises.
    """
    if parts < 1:
        raise ValueError(f"parts is {parts}, expected at least 1")
    keys = _list_keys(key)
    model = stage.prepare_model()
    before = read_target(source.sparkSession, target)
    if before is not None:
        parts = before.schema[FINGERPRINT].metadata["parts"]
    wanted = _assign_parts(_add_fingerprint(source, stage, model, keys), keys, parts)
    if before is None:
        before = stage.transform(wanted.where(F.lit(False)))
    else:
        _check_columns(before, stage.transform(wanted), target)
        _check_keys(before, keys, target)
    _check_keys(source, keys, "the source")

    counts = _count_changes(_compare(wanted, before, keys), stage, model, target)
    for part, count in sorted(counts.items()):
        rows = count["new"] + count["changed"]
        if not rows:
            continue
        part_wanted, part_before = (df.where(F.col(PART) == part) for df in (wanted, before))
        if count["changed"]:
            todo, mode = _select_stale(part_wanted, part_before, keys), "overwrite"
            kept = part_before.join(_select_old_keys(todo, keys), _match_keys(keys), "left_anti")
        else:
            # A row that has changed since it was counted is left out here; the next call replaces it.
            todo, mode = part_wanted.join(_select_old_keys(part_before, keys), _match_keys(keys), "left_anti"), "append"
            kept = part_before.where(F.lit(False))
        result = stage.transform(todo.repartition(count_tasks(rows))).unionByName(kept)
        result = result.select(*map(column, before.columns))  # the names of the target, if they differ by case
        result.write.mode(mode).options(**_WRITE_OPTIONS).partitionBy(PART).parquet(target)
    return Changes(**sum(counts.values(), Counter[str]()))


def rows_to_embed(
    source: DataFrame, target: DataFrame | None, key: str | Sequence[str], stage: InstructorEmbeddings
) -> DataFrame:
    """Return the rows of ``source`` that are new or have changed, with their `FINGERPRINT`.

    Use it for tables of any format: transform these rows with ``stage`` and merge the result into the table by its
    key. ``target`` is that table with the key and `FINGERPRINT` among its columns, or None if it does not exist yet.

    Raises what `embed_changes` raises about the source and the key, and ValueError if the target lacks a column.
    """
    keys = _list_keys(key)
    wanted = _add_fingerprint(source, stage, stage.prepare_model(), keys)
    if target is not None:
        for name in [*keys, FINGERPRINT]:
            find_field(target, name, "the target")
    _check_keys(source, keys, "the source")
    return wanted if target is None else _select_stale(wanted, target, keys)


def count_tasks(rows: int) -> int:
    """Return the number of tasks in which to embed so many rows."""
    return min(max(rows // _ROWS_PER_TASK, _MIN_TASKS), max(rows, 1))


def get_fingerprint_prefix(model: PreparedModel) -> str:
    """Return how the fingerprints of all vectors of a model begin."""
    return model.hash[:16] + "-"


def open_file_system(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return Hadoop's objects for the file system of a path and for the path, on a classic session."""
    hadoop_path = spark._jvm.org.apache.hadoop.fs.Path(path)  # type: ignore[union-attr]
    return hadoop_path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), hadoop_path


def _list_keys(key: str | Sequence[str]) -> list[str]:
    keys = [key] if isinstance(key, str) else list(key)
    if not keys:
        raise ValueError("key is empty, expected the name of a column or several names")
    return keys


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


def _add_fingerprint(
    source: DataFrame, stage: InstructorEmbeddings, model: PreparedModel, keys: list[str]
) -> DataFrame:
    """Add a hash of everything that determines the vector of a row."""
    fields, outputs = stage.check_columns(source)
    for field in fields:
        check_type(field, [StringType()], "the source")
    if len(fields) > 1:
        raise ValueError(f"only one column can be embedded, but the stage has the inputCols {stage.getInputCols()}")
    for name in keys:
        find_field(source, name, "the source")
    check_new_columns(source, [FINGERPRINT, *outputs], "the source")

    instruction = stage.choose_instruction(model)
    instructions = column(str(stage.getInstructionCol())) if instruction is None else F.lit(instruction)
    instructions = instructions.cast(StringType())
    row = F.to_json(F.struct(read_column(fields[0]).alias("text"), instructions.alias("instruction")))
    settings = json.dumps([stage.getMaxSentenceLength(), stage.getLongText()])
    row_hash = F.sha2(F.concat(F.lit(settings), row), 224)
    fingerprint = F.concat(F.lit(get_fingerprint_prefix(model)), _hash_instruction(instructions), row_hash)
    return source.select("*", fingerprint.alias(FINGERPRINT))


def _hash_instruction(instruction: Column) -> Column:
    return F.substring(F.sha2(F.coalesce(instruction, F.lit("")), 256), 1, 8)


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


def _check_columns(before: DataFrame, after: DataFrame, target: str) -> None:
    def find_different(fields: StructType, others: StructType) -> Iterator[str]:
        for field in fields:
            matches = match_names(others.names, field.name, before.sparkSession)
            if not matches or not has_same_type(field, others[matches[0]]):
                yield field.name

    def has_same_type(field: StructField, other: StructField) -> bool:
        # Two output types of vectors are binary.
        output_types = {(one.metadata or {}).get(OUTPUT_TYPE) for one in (field, other)}
        return is_same_type(field.dataType, other.dataType) and len(output_types) == 1

    different = {*find_different(before.schema, after.schema), *find_different(after.schema, before.schema)}
    if different:
        raise ValueError(
            f"{target} has other columns than the source and the stage produce; these differ: "
            f"{', '.join(sorted(different))}. Select the same columns and name the same output column, or write to a "
            "new folder."
        )


def _check_keys(rows: DataFrame, keys: list[str], owner: str) -> None:
    counts = rows.select(F.count("*").alias("rows"), F.count_distinct(*map(column, keys)).alias("distinct")).first()
    assert counts is not None  # an aggregate has one row
    if counts["rows"] != counts["distinct"]:
        raise ValueError(
            f"{owner} has {counts['rows']:,} rows, but {counts['distinct']:,} distinct and non-null values of the key "
            f"{', '.join(keys)}: each row needs its own key"
        )


def _compare(wanted: DataFrame, before: DataFrame, keys: list[str]) -> DataFrame:
    """Join source and target: the source's columns, the target's fingerprint and part, and the kind of each row."""
    old = _select_old_keys(before, keys, F.col(FINGERPRINT).alias(_OLD_FINGERPRINT), F.col(PART).alias(_OLD_PART))
    kind = (
        F.when(F.col(FINGERPRINT).isNull(), "absent")
        .when(F.col(_OLD_PART).isNull(), "new")
        .when(F.col(_OLD_FINGERPRINT) == F.col(FINGERPRINT), "unchanged")
        .otherwise("changed")
    )
    return wanted.join(old, _match_keys(keys), "full_outer").select("*", kind.alias(_KIND))


def _select_stale(wanted: DataFrame, before: DataFrame, keys: list[str]) -> DataFrame:
    """Select the rows of the source that ``before`` lacks or has with another fingerprint."""
    old = _select_old_keys(before, keys, F.col(FINGERPRINT).alias(_OLD_FINGERPRINT))
    return wanted.join(old, _match_keys(keys) & (F.col(_OLD_FINGERPRINT) == F.col(FINGERPRINT)), "left_anti")


def _select_old_keys(rows: DataFrame, keys: list[str], *others: Column) -> DataFrame:
    """Select the key columns under names that a join can distinguish from those of the other side."""
    return rows.select(*(column(name).alias(alias) for name, alias in _alias_keys(keys).items()), *others)


def _alias_keys(keys: list[str]) -> dict[str, str]:
    return {name: f"{_OLD_KEY}_{i}" for i, name in enumerate(keys)}


def _match_keys(keys: list[str]) -> Column:
    return reduce(Column.__and__, [column(name) == F.col(alias) for name, alias in _alias_keys(keys).items()])


def _count_changes(
    compared: DataFrame, stage: InstructorEmbeddings, model: PreparedModel, target: str
) -> dict[int, Counter[str]]:
    """Count the rows of each kind in each part.

    Raises ValueError if rows that only the target has were embedded with another model or instruction.
    """
    prefix = F.lit(get_fingerprint_prefix(model))
    has_other_model = ~F.col(_OLD_FINGERPRINT).startswith(prefix)
    instruction = stage.choose_instruction(model)
    if instruction is not None:
        prefix = F.concat(prefix, _hash_instruction(F.lit(instruction)))
    has_other_instruction = ~has_other_model & ~F.col(_OLD_FINGERPRINT).startswith(prefix)
    is_absent = F.col(_KIND) == "absent"
    rows = compared.groupBy(F.coalesce(PART, _OLD_PART).alias(PART), _KIND).agg(
        F.count("*").alias("rows"),
        F.count_if(is_absent & has_other_model).alias("other_model"),
        F.count_if(is_absent & has_other_instruction).alias("other_instruction"),
    )
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    foreign = Counter[str]()
    for row in rows.collect():
        counts[row[PART]][row[_KIND]] = row["rows"]
        foreign.update(model=row["other_model"], instruction=row["other_instruction"])
    if foreign["model"]:
        raise ValueError(
            f"{foreign['model']:,} rows of {target} are not in the source and were embedded with another model or "
            "precision, and vectors of different models cannot be compared. Pass the whole source, or write to a new "
            "folder."
        )
    if foreign["instruction"]:
        raise ValueError(
            f"{foreign['instruction']:,} rows of {target} are not in the source and were embedded with another "
            "instruction. Pass the whole source, write to a new folder, or, if rows are to have different "
            "instructions, put them into a column of the source and set instructionCol."
        )
    return counts
