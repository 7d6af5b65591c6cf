"""Keeping a table of vectors up to date: what is new or has changed is embedded, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import reduce

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from .models.prepared import PreparedModel
from .provenance import with_provenance
from .stages.annotation import check_new, check_type, column, input_field, same_type
from .stages.embeddings import InstructorEmbeddings

FINGERPRINT = "fingerprint"
"""The column of what decided a row's vector: the model's hash, and one of all the rest."""
PART = "part"
"""The target's column of partitions: the key's hash, modulo their number."""

# An overwrite replaces the parts that it has rows of. An append commits each task alone, for version 1 leaves what a
# killed job's tasks had finished where the next job takes it for its own, and rows come twice. Version 2 is unsafe for
# writers that name a second attempt's files otherwise than the first's; Spark names them alike.
_COMMIT = {"partitionOverwriteMode": "dynamic", "mapreduce.fileoutputcommitter.algorithm.version": "2"}

_GLOB = re.compile(r"[][{}*?\\]")  # what Spark's readers, and not its writers, take for a pattern

_KIND, _WAS, _OLD_PART = "__kind", "__was", "__old_part"
_ROWS_A_TASK = 2000  # some megabytes of vectors a file
_LEAST_TASKS = 16  # so that few rows too use the cluster, and a progress bar moves


@dataclasses.dataclass(frozen=True)
class Changes:
    """What `embed_changes` found, in rows."""

    new: int = 0
    """Embedded: the target had no row of their key."""
    changed: int = 0
    """Embedded again: the text, the instruction, the model, its precision or a limit was another."""
    unchanged: int = 0
    """Left as they were."""
    absent: int = 0
    """In the target alone, and left there: the source need not be all that there is."""


def embed_changes(
    source: DataFrame, target: str, key: str | Sequence[str], stage: InstructorEmbeddings, parts: int = 16
) -> Changes:
    """Bring a Parquet folder of vectors up to date with ``source``, and return how many rows were what.

    ``target`` gets the source's columns, the stage's output, and `FINGERPRINT` and `PART`. ``stage`` embeds one
    string column; ``key``, one column or several, tells the rows apart.

    Each part is written by a job of its own, so after a kill a second call embeds what is left, and after success
    nothing. New rows are appended to their part; a part in which a row changed is written anew. ``parts`` is their
    number in a new target: more of them lose less at a kill, fewer read the source less often. One call at a time
    may write to a target. As the source is read once a part, it has to give the same rows each time.

    Raises, before anything is embedded, ValueError where the key is null or not unique, in the source or in the
    target; where the target was not written by this function, or has other columns; and where rows that the target
    alone has are of another model, as the vectors of two models cannot be compared. Also what
    `InstructorEmbeddings.transform` raises.
    """
    if parts < 1:
        raise ValueError(f"parts is {parts}, expected at least 1")
    keys = _keys(key)
    before = _read(source.sparkSession, target)
    if before is not None:
        parts = before.schema[FINGERPRINT].metadata["parts"]
    wanted = _in_parts(_fingerprinted(source, stage, keys), keys, parts)
    if before is None:
        before = _embedded(wanted.where(F.lit(False)), stage)
    else:
        _check_columns(before, _embedded(wanted, stage), target)
        _check_keys(before, keys, target)
    _check_keys(source, keys, "the source")

    counts = _counts(_compared(wanted, before, keys), stage, target)
    for part, found in sorted(counts.items()):
        rows = found["new"] + found["changed"]
        if not rows:
            continue
        of_part, old = (df.where(F.col(PART) == part) for df in (wanted, before))
        if found["changed"]:
            todo, mode = _without_vector(of_part, old, keys), "overwrite"
            kept = old.join(_old_keys(todo, keys), _same_key(keys), "left_anti")
        else:
            # Whatever the fingerprint: of a row that has changed since it was counted, the next call will replace it.
            todo, mode = of_part.join(_old_keys(old, keys), _same_key(keys), "left_anti"), "append"
            kept = old.where(F.lit(False))
        result = _embedded(todo.repartition(tasks_for(rows)), stage).unionByName(kept)
        writer = result.write.mode(mode).options(**_COMMIT)
        writer.partitionBy(PART).parquet(target)
    return Changes(**sum(counts.values(), Counter[str]()))


def rows_to_embed(
    source: DataFrame, target: DataFrame | None, key: str | Sequence[str], stage: InstructorEmbeddings
) -> DataFrame:
    """The rows of ``source`` that are new or have changed, with their `FINGERPRINT`: what a table of any format lacks.

    ``target`` is that table, with the key and `FINGERPRINT` among its columns, or None where there is none yet. Merge
    into it, by the key, what ``stage`` makes of these rows. Raises what `embed_changes` raises of the source and the
    key, and ValueError where the target lacks a column.
    """
    keys = _keys(key)
    wanted = _fingerprinted(source, stage, keys)
    if target is not None:
        for name in [*keys, FINGERPRINT]:
            input_field(target, name, "the target")
    _check_keys(source, keys, "the source")
    return wanted if target is None else _without_vector(wanted, target, keys)


def tasks_for(rows: int) -> int:
    """How many tasks to embed so many rows in."""
    return min(max(rows // _ROWS_A_TASK, _LEAST_TASKS), max(rows, 1))


def _keys(key: str | Sequence[str]) -> list[str]:
    keys = [key] if isinstance(key, str) else list(key)
    if not keys:
        raise ValueError("key is empty, expected the name of a column, or several")
    return keys


def _read(spark: SparkSession, target: str) -> DataFrame | None:
    """The target as it stands; None where there is none, or a first run was killed before it wrote a part."""
    try:
        before = spark.read.parquet(_GLOB.sub(r"\\\g<0>", target))
        schema = before.schema
    except AnalysisException as error:
        if "PATH_NOT_FOUND" in str(error) or "UNABLE_TO_INFER_SCHEMA" in str(error):
            return None
        raise
    if FINGERPRINT not in schema.names or PART not in schema.names:
        raise ValueError(
            f"{target} was not written by embed_changes: it has no columns {FINGERPRINT!r} and {PART!r}. "
            "Name a new folder, or one that embed_changes wrote."
        )
    if "parts" not in schema[FINGERPRINT].metadata:
        raise ValueError(
            f"{target} was written anew by something that lost the metadata of its column {FINGERPRINT!r}, and with it "
            "the number of parts. Write to a new folder, or restore the old one."
        )
    return before.withColumn(PART, F.col(PART).cast("int"))  # a string where Spark is set not to infer its type


def _fingerprinted(source: DataFrame, stage: InstructorEmbeddings, keys: list[str]) -> DataFrame:
    """The source with what decides each row's vector."""
    fields, outputs = stage._columns(source)
    for field in fields:
        check_type(field, [StringType()], "the source")
    if len(fields) > 1:
        raise ValueError(
            f"one column can be embedded at a time, but the stage has the inputCols {stage.getInputCols()}"
        )
    for name in keys:
        input_field(source, name, "the source")
    check_new(source, [FINGERPRINT, *outputs], "the source")

    instruction_col = stage.getInstructionCol()
    instruction = F.lit(stage.getInstruction()) if instruction_col is None else column(instruction_col)
    read = F.to_json(F.struct(column(fields[0].name).alias("text"), instruction.alias("instruction")))
    limits = json.dumps([stage.getMaxSentenceLength(), stage.getLongText()])
    fingerprint = F.concat(F.lit(fingerprint_start(stage._prepared())), F.sha2(F.concat(F.lit(limits), read), 256))
    return source.select("*", fingerprint.alias(FINGERPRINT))


def _in_parts(wanted: DataFrame, keys: list[str], parts: int) -> DataFrame:
    """Rows with the part that their key falls in; the fingerprint's metadata keeps the number of parts."""
    check_new(wanted, [PART], "the source")
    part = F.pmod(F.xxhash64(*map(column, keys)), F.lit(parts)).cast("int")
    columns = [column(name) for name in wanted.columns if name != FINGERPRINT]
    return wanted.select(*columns, F.col(FINGERPRINT).alias(FINGERPRINT, metadata={"parts": parts}), part.alias(PART))


def fingerprint_start(model: PreparedModel) -> str:
    """How the fingerprints of a model's vectors begin, whatever the text."""
    return model.hash[:16] + "-"


def _embedded(rows: DataFrame, stage: InstructorEmbeddings) -> DataFrame:
    return with_provenance(stage.transform(rows), stage)


def _check_columns(before: DataFrame, now: DataFrame, target: str) -> None:
    was, is_ = ({field.name: field.dataType for field in df.schema} for df in (before, now))
    differ = [
        name for name in {**was, **is_} if name not in was or name not in is_ or not same_type(was[name], is_[name])
    ]
    if differ:
        raise ValueError(
            f"{target} has other columns than the source and the stage give; these differ: "
            f"{', '.join(sorted(differ))}. Select the same columns and name the same output column, or write to a new "
            "folder."
        )


def _check_keys(rows: DataFrame, keys: list[str], what: str) -> None:
    found = rows.select(F.count("*").alias("rows"), F.count_distinct(*map(column, keys)).alias("distinct")).first()
    assert found is not None  # an aggregate has one row
    if found["rows"] != found["distinct"]:
        raise ValueError(
            f"{what} has {found['rows']:,} rows, but {found['distinct']:,} distinct and non-null values of the key "
            f"{', '.join(keys)}: each row needs one of its own"
        )


def _compared(wanted: DataFrame, before: DataFrame, keys: list[str]) -> DataFrame:
    """Source and target side by side: the source's columns, what the target has of a row, and the row's kind."""
    old = _old_keys(before, keys, F.col(FINGERPRINT).alias(_WAS), F.col(PART).alias(_OLD_PART))
    kind = (
        F.when(F.col(FINGERPRINT).isNull(), "absent")
        .when(F.col(_OLD_PART).isNull(), "new")
        .when(F.col(_WAS) == F.col(FINGERPRINT), "unchanged")
        .otherwise("changed")
    )
    return wanted.join(old, _same_key(keys), "full_outer").select("*", kind.alias(_KIND))


def _without_vector(wanted: DataFrame, before: DataFrame, keys: list[str]) -> DataFrame:
    """Those of the source's rows that ``before`` has not, or has of another fingerprint."""
    old = _old_keys(before, keys, F.col(FINGERPRINT).alias(_WAS))
    return wanted.join(old, _same_key(keys) & (F.col(_WAS) == F.col(FINGERPRINT)), "left_anti")


def _old_keys(rows: DataFrame, keys: list[str], *more: Column) -> DataFrame:
    """The key's columns alone, by names that a join tells from another side's."""
    return rows.select(*(column(name).alias(alias) for name, alias in _aliases(keys).items()), *more)


def _aliases(keys: list[str]) -> dict[str, str]:
    """What one side's key columns are called in a join."""
    return {name: f"__old_key_{i}" for i, name in enumerate(keys)}


def _same_key(keys: list[str]) -> Column:
    return reduce(Column.__and__, [column(name) == F.col(alias) for name, alias in _aliases(keys).items()])


def _counts(compared: DataFrame, stage: InstructorEmbeddings, target: str) -> dict[int, Counter[str]]:
    """The rows of each kind in each part."""
    another_model = ~F.col(_WAS).startswith(fingerprint_start(stage._prepared()))
    rows = compared.groupBy(F.coalesce(PART, _OLD_PART).alias(PART), _KIND).agg(
        F.count("*").alias("rows"), F.count_if(another_model & (F.col(_KIND) == "absent")).alias("strangers")
    )
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    strangers = 0
    for row in rows.collect():
        counts[row[PART]][row[_KIND]] = row["rows"]
        strangers += row["strangers"]
    if strangers:
        raise ValueError(
            f"{strangers:,} rows of {target} are not in the source and were embedded by another model or precision, "
            "and the vectors of two models cannot be compared: pass the whole source, or write to a new folder"
        )
    return counts
