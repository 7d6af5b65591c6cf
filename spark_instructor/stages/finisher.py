"""EmbeddingsFinisher: from annotation columns to plain arrays of vectors."""

from __future__ import annotations

from typing import Any

from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.ml.linalg import Vectors
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from .annotation import (
    ANNOTATIONS,
    EMBEDDINGS,
    check_annotator_type,
    check_new,
    check_type,
    column,
    input_field,
    is_annotations,
    quoted,
    with_columns,
)
from .params import HasCleanAnnotations, HasInputCols, HasOutputAsVector, HasOutputCols
from .persistence import PersistentStage


class EmbeddingsFinisher(
    Transformer,
    HasInputCols,
    HasOutputCols,
    HasOutputAsVector,
    HasCleanAnnotations,
    PersistentStage,
):
    """Takes the vectors out of embeddings annotations, as Spark NLP's does.

    Each input column gives an ``array<array<float>>``, one vector for each annotation, or with
    ``outputAsVector`` an array of pyspark.ml vectors. ``outputCols`` are ``finished_<input>`` unless set.
    ``cleanAnnotations`` drops every annotation column.

    `transform` raises ValueError for a missing column, a column that holds no embeddings annotations, an
    output column that is there already, and where there are not as many output columns as input columns.
    """

    __module__ = "spark_instructor"  # the path that saved pipelines name, whatever file holds the class

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

    def getOutputCols(self) -> list[str]:
        """Names of the output columns: ``finished_<input>`` where they were not set."""
        return self._get(self.outputCols) or [f"finished_{name}" for name in self.getInputCols()]

    def _output_names(self) -> list[str]:
        inputs, outputs = self.getInputCols(), self.getOutputCols()
        if len(inputs) != len(outputs):
            raise ValueError(
                f"EmbeddingsFinisher: {len(inputs)} inputCols {inputs} but {len(outputs)} outputCols {outputs}; "
                "name one output column for each input column"
            )
        return outputs

    def _transform(self, dataset: DataFrame) -> DataFrame:
        stage = type(self).__name__
        pairs = list(zip(self.getInputCols(), self._output_names(), strict=True))
        check_new(dataset, [output for _, output in pairs], stage)
        for name, _ in pairs:
            field = input_field(dataset, name, stage)
            check_type(field, [ANNOTATIONS], stage)
            check_annotator_type(field, EMBEDDINGS, stage)
        finished = with_columns(dataset, {output: (self._vectors(column(name)), {}) for name, output in pairs})
        if not self.getCleanAnnotations():
            return finished
        kept = [field.name for field in finished.schema.fields if not is_annotations(field)]
        return finished.select(*[quoted(name) for name in kept])

    def _vectors(self, annotations: Column) -> Column:
        embeddings = F.transform(annotations, lambda one: one["embeddings"])
        if not self.getOutputAsVector():
            return embeddings
        from pyspark.ml.functions import array_to_vector  # needs a session, as it looks up the JVM on 3.5

        # array_to_vector fails on null, and `when` does not keep it from being called.
        nothing = F.array().cast("array<float>")
        return F.transform(embeddings, lambda one: F.when(one.isNotNull(), array_to_vector(F.coalesce(one, nothing))))

    def _transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """`transform` for rows in Python; `LightPipeline` itself leaves out what ``cleanAnnotations`` drops."""
        vector = Vectors.dense if self.getOutputAsVector() else list
        finished = {
            output: [[vector(one.embeddings) for one in cell] for cell in rows[name]]
            for name, output in zip(self.getInputCols(), self._output_names(), strict=True)
        }
        return {**rows, **finished}
