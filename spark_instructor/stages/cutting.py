"""CuttingStage: the base class of the stages that cut documents into chunks or sentences, which are documents again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, StringType, StructField

from ..chunks import BEGIN, DOCUMENT, END, TEXT, Row
from ..columns import add_columns, check_new_columns, check_type, column, empty_array, find_field, read_column
from . import annotation, base
from .annotation import ANNOTATIONS, METADATA, Annotation, check_annotator_type, is_annotations
from .base import Stage
from .expressions import compute_once
from .params import HasInputCols, HasLazyAnnotator, HasOutputCol

Cutter = Callable[[list[str | None]], Row]
"""Cuts the texts of a row and returns a row of the results; see `chunks`."""


class CuttingStage(Stage, HasInputCols, HasOutputCol, HasLazyAnnotator):
    """A stage that cuts the documents of a column into pieces, each with its place in its document.

    Subclasses implement `create_udf`, `create_cutter` and `is_exploded`.
    """

    output_kinds: ClassVar = {base.TEXT: annotation.DOCUMENT, annotation.DOCUMENT: annotation.DOCUMENT}
    own_metadata: ClassVar[dict[str, str]]
    """The entries that the stage adds to the metadata of a piece, each with the name of the result that it shows."""

    def create_udf(self, dataset: DataFrame) -> Any:
        """Return the UDF that cuts arrays of texts. Raises ValueError if the Params contradict each other."""
        raise NotImplementedError

    def create_cutter(self) -> Cutter:
        """Return the function that cuts the texts of a row on the driver. Raises what `create_udf` raises."""
        raise NotImplementedError

    def is_exploded(self) -> bool:
        """Return whether each piece gets a row of its own."""
        raise NotImplementedError

    def list_inputs(self) -> list[str]:
        """Return the name of the input column in a list; raise ValueError if there are several."""
        inputs = self.getInputCols()
        if len(inputs) != 1:
            raise ValueError(
                f"{type(self).__name__} reads one column, but inputCols is {inputs}: use one stage for each"
            )
        return inputs

    def list_outputs(self) -> list[str]:
        """Return the name of the output column in a list."""
        return [self.getOutputCol()]

    def _transform(self, dataset: DataFrame) -> DataFrame:
        stage = type(self).__name__
        field = find_field(dataset, self.list_inputs()[0], stage)
        check_type(field, [ANNOTATIONS, StringType(), ArrayType(StringType())], stage)
        check_annotator_type(field, (annotation.DOCUMENT,), stage)
        check_new_columns(dataset, self.list_outputs(), stage)

        rows, result, once = compute_once(dataset, self.create_udf(dataset)(_select_texts(field)), self.uid)
        temporary = [result, once]
        annotations = self._build_annotations(field, column(result))
        if self.is_exploded():
            exploded = f"{self.uid}__exploded"
            rows = rows.select("*", F.explode(annotations).alias(exploded))
            annotations = F.array(column(exploded))
            temporary.append(exploded)
        # The cast to the exact schema of Spark NLP; the guard keeps Spark from computing the UDF twice.
        annotations = F.when(column(once), annotations.cast(ANNOTATIONS))
        output = {self.getOutputCol(): (annotations, {"annotatorType": annotation.DOCUMENT})}
        return add_columns(rows, output).drop(*temporary)

    def _build_annotations(self, field: StructField, result: Column) -> Column:
        """Return the annotations of the pieces that the UDF found."""

        def build(text: Column, i: Column) -> Column:
            document = F.get(result[DOCUMENT], i)
            first, inherited = F.lit(0), F.create_map(F.lit("sentence"), document.cast("string"))
            if is_annotations(field):
                # Only what is needed of the annotation is cast, since this happens once per piece.
                source = F.get(column(field.name), document)
                first = F.coalesce(source["begin"], F.lit(0))
                inherited = F.coalesce(source["metadata"].cast(METADATA), F.create_map().cast(METADATA))
            inherited = F.map_filter(inherited, lambda key, _: ~key.isin(*self.own_metadata))
            own = [
                F.create_map(F.lit(key), F.get(result[name], i).cast("string"))
                for key, name in self.own_metadata.items()
            ]
            return F.struct(
                F.lit(annotation.DOCUMENT).alias("annotatorType"),
                # Never null, but Spark cannot know that.
                F.coalesce(first + F.get(result[BEGIN], i), F.lit(0)).alias("begin"),
                F.coalesce(first + F.get(result[END], i), F.lit(-1)).alias("end"),
                text.alias("result"),
                F.map_concat(inherited, *own).alias("metadata"),
                empty_array(F.lit(0.0).cast(FloatType())).alias("embeddings"),
            )

        return F.transform(result[TEXT], build)

    def transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Do on the driver what `transform` does, except that the pieces of a text always stay together."""
        cut = self.create_cutter()

        def cut_cell(cell: str | list[Annotation]) -> list[Annotation]:
            if isinstance(cell, str):
                cell = [Annotation(annotation.DOCUMENT, 0, 0, cell, {"sentence": "0"}, [])]
            found = cut([document.result for document in cell])
            pieces = []
            for i, text in enumerate(found[TEXT]):
                document = cell[found[DOCUMENT][i]]
                begin, end = document.begin + found[BEGIN][i], document.begin + found[END][i]
                own = {key: str(found[name][i]) for key, name in self.own_metadata.items()}
                pieces.append(Annotation(annotation.DOCUMENT, begin, end, text, {**document.metadata, **own}, []))
            return pieces

        (name,) = self.list_inputs()
        return {**rows, self.getOutputCol(): [cut_cell(cell) for cell in rows[name]]}


def _select_texts(field: StructField) -> Column:
    """Return the texts of a column in an array, as the UDF receives them; a null string is a null in it."""
    if is_annotations(field):
        return F.transform(read_column(field), lambda document: document["result"])
    return read_column(field) if isinstance(field.dataType, ArrayType) else F.array(read_column(field))
