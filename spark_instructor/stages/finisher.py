"""EmbeddingsFinisher: from annotation columns to plain arrays of vectors."""

from __future__ import annotations

from typing import Any, ClassVar

from pyspark import keyword_only
from pyspark.ml.linalg import Vectors
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from ..columns import add_columns, check_new_columns, check_type, column, find_field
from ..udf import to_ml_vector
from .annotation import ANNOTATIONS, EMBEDDINGS, SENTENCE_EMBEDDINGS, check_annotator_type, is_annotations
from .base import PLAIN_VECTORS, Stage
from .params import HasInputCols, HasOutputCols, Self


class _EmbeddingsFinisherParams(HasInputCols, HasOutputCols):
    """Params of `EmbeddingsFinisher`."""

    outputAsVector: Param[bool] = Param(
        Params._dummy(),
        "outputAsVector",
        "whether to return array<vector> instead of array<array<float>>",
        TypeConverters.toBoolean,
    )
    cleanAnnotations: Param[bool] = Param(
        Params._dummy(), "cleanAnnotations", "whether to drop all annotation columns", TypeConverters.toBoolean
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(outputAsVector=False, cleanAnnotations=False)

    def getOutputCols(self) -> list[str]:
        """Return the names of the output columns; ``finished_<input>`` if they are not set."""
        return self._get(self.outputCols) or [f"finished_{name}" for name in self.getInputCols()]

    def setOutputAsVector(self: Self, value: bool) -> Self:
        """Set whether to return pyspark.ml vectors (doubles) instead of arrays of floats."""
        return self._set(outputAsVector=value)

    def getOutputAsVector(self) -> bool:
        """Return whether the stage returns pyspark.ml vectors."""
        return self.getOrDefault(self.outputAsVector)

    def setCleanAnnotations(self: Self, value: bool) -> Self:
        """Set whether to drop all annotation columns."""
        return self._set(cleanAnnotations=value)

    def getCleanAnnotations(self) -> bool:
        """Return whether the stage drops all annotation columns."""
        return self.getOrDefault(self.cleanAnnotations)


class EmbeddingsFinisher(Stage, _EmbeddingsFinisherParams):
    """Extracts the vectors from columns of embeddings annotations, as Spark NLP's stage does.

    Each input column gives an ``array<array<float>>`` with one vector per annotation, or with ``outputAsVector`` an
    array of pyspark.ml vectors. ``outputCols`` are ``finished_<input>`` unless they are set. ``cleanAnnotations``
    drops all annotation columns.

    `transform` raises ValueError if a column is missing or holds no embeddings annotations, if an output column
    exists already, and if the numbers of input columns and output columns differ.
    """

    output_kinds: ClassVar = {SENTENCE_EMBEDDINGS: PLAIN_VECTORS}

    @keyword_only
    def __init__(
        self,
        *,
        inputCols: str | list[str] | None = None,
        outputCols: str | list[str] | None = None,
        outputAsVector: bool | None = None,
        cleanAnnotations: bool | None = None,
    ) -> None:
        super().__init__()
        self._set(**self._input_kwargs)

    @property
    def drops_annotations(self) -> bool:
        """Whether ``cleanAnnotations`` is set."""
        return self.getCleanAnnotations()

    def list_inputs(self) -> list[str]:
        """Return the names of the input columns."""
        return self.getInputCols()

    def list_outputs(self) -> list[str]:
        """Return the names of the output columns; raise ValueError if their number is not that of the input columns."""
        inputs, outputs = self.getInputCols(), self.getOutputCols()
        if len(inputs) != len(outputs):
            raise ValueError(
                f"EmbeddingsFinisher: {len(inputs)} inputCols {inputs} but {len(outputs)} outputCols {outputs}; "
                "name one output column per input column"
            )
        return outputs

    def _transform(self, dataset: DataFrame) -> DataFrame:
        stage = type(self).__name__
        pairs = list(zip(self.list_inputs(), self.list_outputs(), strict=True))
        check_new_columns(dataset, [output for _, output in pairs], stage)
        for name, _ in pairs:
            field = find_field(dataset, name, stage)
            check_type(field, [ANNOTATIONS], stage)
            check_annotator_type(field, EMBEDDINGS, stage)
        finished = add_columns(dataset, {output: (self._extract_vectors(column(name)), {}) for name, output in pairs})
        if not self.drops_annotations:
            return finished
        return finished.drop(*(field.name for field in finished.schema.fields if is_annotations(field)))

    def _extract_vectors(self, annotations: Column) -> Column:
        embeddings = F.transform(annotations, lambda annotation: annotation["embeddings"])
        return F.transform(embeddings, to_ml_vector) if self.getOutputAsVector() else embeddings

    def transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Do on the driver what `transform` does, except that annotation columns stay."""
        convert = Vectors.dense if self.getOutputAsVector() else list
        finished = {
            output: [[convert(annotation.embeddings) for annotation in cell] for cell in rows[name]]
            for name, output in zip(self.list_inputs(), self.list_outputs(), strict=True)
        }
        return {**rows, **finished}
