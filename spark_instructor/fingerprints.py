"""Fingerprints of rows, by which a source and a target of vectors are compared: what is new, and what has changed."""

from __future__ import annotations

import dataclasses
import json
import operator
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from .columns import check_new_columns, check_type, column, find_field, is_same_type, match_names, read_column
from .models.prepared import PreparedModel
from .stages.embeddings import InstructorEmbeddings
from .vectors import OUTPUT_TYPE

FINGERPRINT = "fingerprint"
"""Name of the column that identifies what determined a row's vector: the model's hash and a hash of all the rest."""

OLD_PREFIX = f"__{uuid.uuid4().hex}_"
"""How the names of the target's columns begin in a join with the source, which has no columns with such names."""

_KIND, _OLD_FINGERPRINT, _OLD_KEY = (OLD_PREFIX + name for name in ("kind", "fingerprint", "key"))


@dataclasses.dataclass(frozen=True)
class Changes:
    """Numbers of rows that `embed_changes` or `embed_table` found."""

    new: int = 0
    """Rows that were embedded because the target had no row with their key."""
    changed: int = 0
    """Rows that were embedded again because the text, the instruction, the model, its precision or a limit changed."""
    unchanged: int = 0
    """Rows that stayed as they were."""
    absent: int = 0
    """Rows that only the target has. They stay there, unless `embed_table` was called with ``delete_absent``."""


def rows_to_embed(
    source: DataFrame, target: DataFrame | None, key: str | Sequence[str], stage: InstructorEmbeddings
) -> DataFrame:
    """Return the rows of ``source`` that are new or have changed, with their `FINGERPRINT`.

    Use it for tables of any format: transform these rows with ``stage`` and merge the result into the table by its
    key. ``target`` is that table with the key and `FINGERPRINT` among its columns, or None if it does not exist yet.

    Raises what `embed_changes` raises about the source and the key, and ValueError if the target lacks a column.
    """
    keys = list_keys(key)
    wanted = add_fingerprint(source, stage, stage.prepare_model(), keys)
    if target is not None:
        for name in [*keys, FINGERPRINT]:
            find_field(target, name, "the target")
    check_keys(source, keys, "the source")
    return wanted if target is None else select_stale(wanted, target, keys)


def list_keys(key: str | Sequence[str]) -> list[str]:
    """Return the names of the columns of a key. Raises ValueError if there are none."""
    keys = [key] if isinstance(key, str) else list(key)
    if not keys:
        raise ValueError("key is empty, expected the name of a column or several names")
    return keys


def get_fingerprint_prefix(model: PreparedModel) -> str:
    """Return how the fingerprints of all vectors of a model begin."""
    return model.hash[:16] + "-"


def add_fingerprint(source: DataFrame, stage: InstructorEmbeddings, model: PreparedModel, keys: list[str]) -> DataFrame:
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
    content = F.struct(read_column(fields[0]).alias("text"), instructions.alias("instruction"))
    row = F.to_json(content, {"ignoreNullFields": "true"})  # whatever the session's setting is
    # Output types may differ in nothing but metadata, which some formats of tables lose.
    settings = json.dumps([stage.getMaxSentenceLength(), stage.getLongText(), stage.getOutputType()])
    row_hash = F.sha2(F.concat(F.lit(settings), row), 224)
    fingerprint = F.concat(F.lit(get_fingerprint_prefix(model)), _hash_instruction(instructions), row_hash)
    return source.select("*", fingerprint.alias(FINGERPRINT))


def _hash_instruction(instruction: Column) -> Column:
    return F.substring(F.sha2(F.coalesce(instruction, F.lit("")), 256), 1, 8)


def check_columns(before: DataFrame, after: DataFrame, target: str) -> None:
    """Raise ValueError if the target does not have the same columns as the embedded source, in any order."""
    different = find_different_columns(before, after)
    if different:
        raise ValueError(
            f"{target} does not have the columns that the source and the stage produce; these differ: "
            f"{', '.join(different)}. Select the same columns and name the same output column, or name a new target."
        )


def find_different_columns(before: DataFrame, after: DataFrame) -> list[str]:
    """Return the names of the columns that one of two DataFrames lacks or has with another type, sorted."""

    def find_different(fields: StructType, others: StructType) -> Iterator[str]:
        for field in fields:
            matches = match_names(others.names, field.name, before.sparkSession)
            if not matches or not has_same_type(field, others[matches[0]]):
                yield field.name

    def has_same_type(field: StructField, other: StructField) -> bool:
        # Two output types of vectors are binary. Tables of some formats do not keep the metadata that tells them apart.
        output_types = {(one.metadata or {}).get(OUTPUT_TYPE) for one in (field, other)} - {None}
        return is_same_type(field.dataType, other.dataType) and len(output_types) <= 1

    return sorted({*find_different(before.schema, after.schema), *find_different(after.schema, before.schema)})


def check_keys(rows: DataFrame, keys: list[str], owner: str) -> None:
    """Raise ValueError, naming the ``owner`` of the rows, if a key is null or occurs twice."""
    counts = rows.select(F.count("*").alias("rows"), F.count_distinct(*map(column, keys)).alias("distinct")).first()
    assert counts is not None  # an aggregate has one row
    if counts["rows"] != counts["distinct"]:
        raise ValueError(
            f"{owner} has {counts['rows']:,} rows, but {counts['distinct']:,} distinct and non-null values of the key "
            f"{', '.join(keys)}: each row needs its own key"
        )


def compare(wanted: DataFrame, before: DataFrame, keys: list[str], *others: Column) -> DataFrame:
    """Join source and target: the source's columns, the target's fingerprint and others, and the kind of each row."""
    old = select_old_keys(before, keys, F.col(FINGERPRINT).alias(_OLD_FINGERPRINT), *others)
    kind = (
        F.when(F.col(FINGERPRINT).isNull(), "absent")
        .when(F.col(_alias_keys(keys)[keys[0]]).isNull(), "new")  # no key of a target is null
        .when(F.col(_OLD_FINGERPRINT) == F.col(FINGERPRINT), "unchanged")
        .otherwise("changed")
    )
    return wanted.join(old, match_keys(keys), "full_outer").select("*", kind.alias(_KIND))


def select_stale(wanted: DataFrame, before: DataFrame, keys: list[str]) -> DataFrame:
    """Select the rows of the source that ``before`` lacks or has with another fingerprint."""
    return join_fingerprints(wanted, before, keys, "left_anti")


def join_fingerprints(wanted: DataFrame, before: DataFrame, keys: list[str], how: str, *others: Column) -> DataFrame:
    """Join rows with the rows of ``before`` that have the same key and fingerprint, and with their ``others``."""
    old = select_old_keys(before, keys, F.col(FINGERPRINT).alias(_OLD_FINGERPRINT), *others)
    return wanted.join(old, match_keys(keys) & (F.col(_OLD_FINGERPRINT) == F.col(FINGERPRINT)), how)


def select_old_keys(rows: DataFrame, keys: list[str], *others: Column) -> DataFrame:
    """Select the key columns under names that a join can distinguish from those of the other side."""
    return rows.select(*(column(name).alias(alias) for name, alias in _alias_keys(keys).items()), *others)


def _alias_keys(keys: list[str]) -> dict[str, str]:
    return {name: f"{_OLD_KEY}_{i}" for i, name in enumerate(keys)}


def match_keys(keys: list[str]) -> Column:
    """Return the condition of a join with the rows of `select_old_keys`: the keys are equal."""
    return reduce(operator.and_, [column(name) == F.col(alias) for name, alias in _alias_keys(keys).items()])


def count_changes(
    compared: DataFrame, part: Column, stage: InstructorEmbeddings, model: PreparedModel, target: str
) -> dict[int, Counter[str]]:
    """Count the rows of each kind in each part of the rows that `compare` returned.

    Raises ValueError if rows that only the target has were embedded with another model or instruction.
    """
    prefix = F.lit(get_fingerprint_prefix(model))
    has_other_model = ~F.col(_OLD_FINGERPRINT).startswith(prefix)
    instruction = stage.choose_instruction(model)
    if instruction is not None:
        prefix = F.concat(prefix, _hash_instruction(F.lit(instruction)))
    has_other_instruction = ~has_other_model & ~F.col(_OLD_FINGERPRINT).startswith(prefix)
    is_absent = F.col(_KIND) == "absent"
    rows = compared.groupBy(part.alias("part"), _KIND).agg(
        F.count("*").alias("rows"),
        F.count_if(is_absent & has_other_model).alias("other_model"),
        F.count_if(is_absent & has_other_instruction).alias("other_instruction"),
    )
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    foreign = Counter[str]()
    for row in rows.collect():
        counts[row["part"]][row[_KIND]] = row["rows"]
        foreign.update(model=row["other_model"], instruction=row["other_instruction"])
    if foreign["model"]:
        raise ValueError(
            f"{foreign['model']:,} rows of {target} are not in the source and were embedded with another model or "
            "precision, and vectors of different models cannot be compared. Pass the whole source, or name a new "
            "target."
        )
    if foreign["instruction"]:
        raise ValueError(
            f"{foreign['instruction']:,} rows of {target} are not in the source and were embedded with another "
            "instruction. Pass the whole source, name a new target, or, if rows are to have different "
            "instructions, put them into a column of the source and set instructionCol."
        )
    return counts
