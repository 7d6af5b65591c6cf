"""DocumentAssembler: from a text column to a column of document annotations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType

from .annotation import (
    ANNOTATIONS,
    DOCUMENT,
    METADATA,
    VECTOR,
    Annotation,
    check_new,
    check_type,
    column,
    input_field,
    utf16_length,
    with_columns,
)
from .params import HasCleanupMode, HasIdCol, HasInputCol, HasMetadataCol, HasOutputCol
from .persistence import PersistentStage

# What each mode does, as Spark NLP's DocumentAssembler: whether to trim, the pattern, its replacement.
# \s is Java's: these six characters. In the patterns \\n stands for the two characters of an escape. The
# look-behind changes no result; without it a long run of \r escapes alone takes quadratic time.
_SPACE = r"[ \t\n\x0B\f\r]"
_CLEANUP: dict[str, tuple[bool, str, str]] = {
    "inplace": (False, _SPACE, " "),
    "inplace_full": (False, rf"{_SPACE}|(?:\\r)?\\n|\\t", " "),
    "shrink": (True, rf"{_SPACE}+", " "),
    "shrink_full": (True, rf"{_SPACE}+|(?<!\\r)(?:\\r)*(?:\\n)+|(?:\\t)+", " "),
    "each": (False, rf"{_SPACE}[\n\t]", " "),
    "each_full": (False, rf"{_SPACE}(?:\n|\t|(?:\\r)?\\n|\\t)", " "),
    "delete_full": (True, r"(?:\\r)?\\n|\\t", ""),
}
_TRIMMED = "".join(map(chr, range(0x21)))  # what Java's trim cuts: everything up to U+0020


class DocumentAssembler(
    Transformer,
    HasInputCol,
    HasOutputCol,
    HasIdCol,
    HasMetadataCol,
    HasCleanupMode,
    PersistentStage,
):
    r"""Turns a text column (string, or array of strings) into document annotations, as Spark NLP's does.

    A string gives one annotation; null and "" give one with an empty result. An array gives one
    annotation an element, numbered by ``sentence`` in the metadata; a null array gives none. ``end`` is the
    index of the last character in UTF-16 units. ``idCol`` and ``metadataCol`` add to the metadata.

    ``cleanupMode`` tidies white space: "disabled"; "inplace" (each becomes a space), "shrink" (trimmed, runs
    become one space), "each" (one followed by a newline or tab becomes a space); with "_full" the same for
    the literal escapes ``\r\n``, ``\n`` and ``\t`` too; "delete_full" (trimmed, literal escapes deleted).

    Everything is done in Spark's own column expressions. `transform` raises ValueError for a missing
    column, a column of another type and an output column that is there already.
    """

    __module__ = "spark_instructor"  # the path that saved pipelines name, whatever file holds the class

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        idCol: str | None = None,
        metadataCol: str | None = None,
        cleanupMode: str | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(outputCol=DOCUMENT)
        self._set(**self._input_kwargs)

    def _output_names(self) -> list[str]:
        return [self.getOutputCol()]

    def _transform(self, dataset: DataFrame) -> DataFrame:
        stage = type(self).__name__
        field = input_field(dataset, self.getInputCol(), stage)
        check_type(field, [StringType(), ArrayType(StringType())], stage)
        check_new(dataset, [self.getOutputCol()], stage)

        extra = F.create_map().cast(METADATA)
        metadata_col, id_col = self.getMetadataCol(), self.getIdCol()
        if metadata_col is not None:
            check_type(input_field(dataset, metadata_col, stage), [METADATA], stage)
            extra = F.coalesce(column(metadata_col), extra)
        own: list[Column] = []
        if id_col is not None:
            input_field(dataset, id_col, stage)
            own = [F.lit("id"), column(id_col).cast("string")]

        text = column(field.name)
        no_texts = F.array().cast(ArrayType(StringType()))
        texts = F.array(text) if isinstance(field.dataType, StringType) else F.coalesce(text, no_texts)
        cleaned = F.transform(texts, lambda one: self._cleaned(F.coalesce(one, F.lit(""))))
        documents = F.transform(cleaned, lambda one, i: _document(one, i, extra, own))
        added = {self.getOutputCol(): (documents.cast(ANNOTATIONS), {"annotatorType": DOCUMENT})}
        return with_columns(dataset, added)

    def _cleaned(self, text: Column) -> Column:
        if self.getCleanupMode() == "disabled":
            return text
        trim, pattern, replacement = _CLEANUP[self.getCleanupMode()]
        trimmed = F.btrim(text, F.lit(_TRIMMED)) if trim else text
        return F.regexp_replace(trimmed, pattern, replacement)

    def _transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """`transform` for texts in Python; the metadata and id columns are left out."""
        documents = [[_local_document(text, self.getCleanupMode())] for text in rows[self.getInputCol()]]
        return {**rows, self.getOutputCol(): documents}


def _document(text: Column, index: Column, extra: Column, own: Sequence[Column]) -> Column:
    taken = ["sentence", "id"] if own else ["sentence"]
    metadata = F.map_concat(
        F.map_filter(extra, lambda key, _: ~key.isin(*taken)),
        F.create_map(F.lit("sentence"), index.cast("string"), *own),
    )
    return F.struct(
        F.lit(DOCUMENT).alias("annotatorType"),
        F.lit(0).alias("begin"),
        F.coalesce(utf16_length(text) - 1, F.lit(-1)).alias("end"),  # never null, but Spark cannot know
        text.alias("result"),
        metadata.alias("metadata"),
        F.array().cast(VECTOR).alias("embeddings"),
    )


def _local_document(text: str, mode: str) -> Annotation:
    if mode != "disabled":
        trim, pattern, replacement = _CLEANUP[mode]
        text = re.sub(pattern, replacement, text.strip(_TRIMMED) if trim else text)
    utf16_units = len(text.encode("utf-16-be", "surrogatepass")) // 2
    return Annotation(DOCUMENT, 0, utf16_units - 1, text, {"sentence": "0"}, [])
