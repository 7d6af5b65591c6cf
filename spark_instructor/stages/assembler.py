"""DocumentAssembler: from a text column to a column of document annotations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, StringType

from ..characters import count_utf16_units
from ..columns import add_columns, check_new_columns, check_type, column, empty_array, find_field, read_column
from .annotation import ANNOTATIONS, DOCUMENT, METADATA, Annotation
from .base import TEXT, Stage
from .expressions import utf16_length
from .params import HasOutputCol, OneOf, Self


class _Cleanup(NamedTuple):
    """What a cleanup mode does to a text."""

    trims: bool
    """Whether to remove leading and trailing white space first."""
    pattern: str
    """Regular expression of what to replace."""
    replacement: str


# As in Spark NLP's DocumentAssembler. \s is Java's: these six characters. In the patterns \\n stands for the two
# characters of an escape. The look-behind changes no result; without it a long run of \r escapes takes quadratic time.
_SPACE = r"[ \t\n\x0B\f\r]"
CLEANUPS = {
    "disabled": None,
    "inplace": _Cleanup(False, _SPACE, " "),
    "inplace_full": _Cleanup(False, rf"{_SPACE}|(?:\\r)?\\n|\\t", " "),
    "shrink": _Cleanup(True, rf"{_SPACE}+", " "),
    "shrink_full": _Cleanup(True, rf"{_SPACE}+|(?<!\\r)(?:\\r)*(?:\\n)+|(?:\\t)+", " "),
    "each": _Cleanup(False, rf"{_SPACE}[\n\t]", " "),
    "each_full": _Cleanup(False, rf"{_SPACE}(?:\n|\t|(?:\\r)?\\n|\\t)", " "),
    "delete_full": _Cleanup(True, r"(?:\\r)?\\n|\\t", ""),
}
_TRIMMED = "".join(map(chr, range(0x21)))  # the characters that Java's trim removes: everything up to U+0020


class _DocumentAssemblerParams(HasOutputCol):
    """Params of `DocumentAssembler`."""

    inputCol: Param[str] = Param(Params._dummy(), "inputCol", "name of the text column", TypeConverters.toString)
    idCol: Param[str] = Param(
        Params._dummy(), "idCol", "name of a column that the metadata contains as id", TypeConverters.toString
    )
    metadataCol: Param[str] = Param(
        Params._dummy(),
        "metadataCol",
        "name of a map<string,string> column that is added to the metadata",
        TypeConverters.toString,
    )
    cleanupMode: Param[str] = Param(
        Params._dummy(),
        "cleanupMode",
        f"how to clean white space: {', '.join(CLEANUPS)}",
        OneOf("cleanupMode", tuple(CLEANUPS)),
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(outputCol=DOCUMENT, cleanupMode="disabled")

    def setInputCol(self: Self, value: str) -> Self:
        """Set the name of the text column."""
        return self._set(inputCol=value)

    def getInputCol(self) -> str:
        """Return the name of the text column; raise ValueError if it is not set."""
        return self._get_required(self.inputCol)

    def setIdCol(self: Self, value: str) -> Self:
        """Set the name of a column whose value each document carries as ``id`` in its metadata."""
        return self._set(idCol=value)

    def getIdCol(self) -> str | None:
        """Return the name of the id column, or None."""
        return self._get(self.idCol)

    def setMetadataCol(self: Self, value: str) -> Self:
        """Set the name of a map<string,string> column that is added to the metadata of each document."""
        return self._set(metadataCol=value)

    def getMetadataCol(self) -> str | None:
        """Return the name of the metadata column, or None."""
        return self._get(self.metadataCol)

    def setCleanupMode(self: Self, value: str) -> Self:
        """Set how to clean white space; see `DocumentAssembler`. Raises ValueError for an unknown mode."""
        return self._set(cleanupMode=value)

    def getCleanupMode(self) -> str:
        """Return how white space is cleaned."""
        return self.getOrDefault(self.cleanupMode)


class DocumentAssembler(Stage, _DocumentAssemblerParams):
    r"""Turns a text column (string or array of strings) into document annotations, as Spark NLP's stage does.

    A string gives one annotation; null and "" give one with an empty result. An array gives one annotation per
    element, numbered by ``sentence`` in the metadata; a null array gives none. ``end`` is the index of the last
    character in UTF-16 units. ``idCol`` and ``metadataCol`` add entries to the metadata.

    ``cleanupMode`` cleans white space. "disabled" leaves the text as it is. "inplace" replaces each white-space
    character with a space. "shrink" trims the text and replaces runs of white space with one space. "each" replaces a
    white-space character that a newline or a tab follows, together with it, with one space. With "_full" the same
    happens to the literal escapes ``\r\n``, ``\n`` and ``\t`` too. "delete_full" trims the text and deletes literal
    escapes.

    The stage consists of Spark's own column expressions. `transform` raises ValueError if a column is missing or has
    another type, and if the output column exists already.
    """

    output_kinds: ClassVar = {TEXT: DOCUMENT}

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
        self._set(**self._input_kwargs)

    def list_inputs(self) -> list[str]:
        """Return the name of the text column in a list."""
        return [self.getInputCol()]

    def list_outputs(self) -> list[str]:
        """Return the name of the output column in a list."""
        return [self.getOutputCol()]

    def _transform(self, dataset: DataFrame) -> DataFrame:
        stage = type(self).__name__
        field = find_field(dataset, self.getInputCol(), stage)
        check_type(field, [StringType(), ArrayType(StringType())], stage)
        check_new_columns(dataset, [self.getOutputCol()], stage)

        metadata = F.create_map().cast(METADATA)
        metadata_col, id_col = self.getMetadataCol(), self.getIdCol()
        if metadata_col is not None:
            metadata_field = find_field(dataset, metadata_col, stage)
            check_type(metadata_field, [METADATA], stage)
            metadata = F.coalesce(read_column(metadata_field), metadata)
        id_entry: list[Column] = []
        if id_col is not None:
            id_entry = [F.lit("id"), column(find_field(dataset, id_col, stage).name).cast(StringType())]

        text = read_column(field)
        no_texts = F.array().cast(ArrayType(StringType()))
        texts = F.coalesce(text, no_texts) if isinstance(field.dataType, ArrayType) else F.array(text)
        cleaned = F.transform(texts, lambda text: self._clean(F.coalesce(text, F.lit(""))))
        documents = F.transform(cleaned, lambda text, index: _build_document(text, index, metadata, id_entry))
        # Always true, but Spark cannot know that: the column is nullable, as that of Spark NLP's stage.
        documents = F.when(F.size(texts) >= 0, documents.cast(ANNOTATIONS))
        added = {self.getOutputCol(): (documents, {"annotatorType": DOCUMENT})}
        return add_columns(dataset, added)

    def _clean(self, text: Column) -> Column:
        cleanup = CLEANUPS[self.getCleanupMode()]
        if cleanup is None:
            return text
        trimmed = F.btrim(text, F.lit(_TRIMMED)) if cleanup.trims else text
        return F.regexp_replace(trimmed, cleanup.pattern, cleanup.replacement)

    def transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Do on the driver what `transform` does, without the metadata column and the id column."""
        documents = [[self._assemble(text)] for text in rows[self.getInputCol()]]
        return {**rows, self.getOutputCol(): documents}

    def _assemble(self, text: str) -> Annotation:
        cleanup = CLEANUPS[self.getCleanupMode()]
        if cleanup is not None:
            trimmed = text.strip(_TRIMMED) if cleanup.trims else text
            text = re.sub(cleanup.pattern, cleanup.replacement, trimmed)
        return Annotation(DOCUMENT, 0, count_utf16_units(text) - 1, text, {"sentence": "0"}, [])


def _build_document(text: Column, index: Column, metadata: Column, id_entry: Sequence[Column]) -> Column:
    own_keys = ["sentence", "id"] if id_entry else ["sentence"]
    all_metadata = F.map_concat(
        F.map_filter(metadata, lambda key, _: ~key.isin(*own_keys)),
        F.create_map(F.lit("sentence"), index.cast("string"), *id_entry),
    )
    return F.struct(
        F.lit(DOCUMENT).alias("annotatorType"),
        F.lit(0).alias("begin"),
        F.coalesce(utf16_length(text) - 1, F.lit(-1)).alias("end"),  # never null, but Spark cannot know that
        text.alias("result"),
        all_metadata.alias("metadata"),
        empty_array(F.lit(0.0).cast(FloatType())).alias("embeddings"),
    )
