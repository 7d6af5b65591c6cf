"""LightPipeline: a fitted pipeline over a few texts on the driver, without a Spark job."""

from __future__ import annotations

from typing import Any

from pyspark.ml import PipelineModel

from .annotation import EMBEDDINGS, Annotation
from .annotator import InstructorEmbeddings
from .assembler import DocumentAssembler
from .finisher import EmbeddingsFinisher
from .params import HasInputCol


class LightPipeline:
    """Runs the stages of a `PipelineModel` on texts in this process, as Spark NLP's class of this name does.

    Its stages may be `DocumentAssembler`, `InstructorEmbeddings` and `EmbeddingsFinisher`; the first reads the
    texts, whatever its input column is called. All texts of a call are embedded together, with the
    vectors that `transform` gives.

    Raises TypeError for a stage of another kind, ValueError where the stages read more than one column
    that none of them makes.
    """

    def __init__(self, pipelineModel: PipelineModel, parse_embeddings: bool = False) -> None:
        self.pipeline_model = pipelineModel
        self.parse_embeddings = parse_embeddings
        self._stages: list[Any] = []
        for stage in pipelineModel.stages:
            if not isinstance(stage, (DocumentAssembler, InstructorEmbeddings, EmbeddingsFinisher)):
                raise TypeError(
                    f"LightPipeline cannot run {type(stage).__name__}: it runs DocumentAssembler, InstructorEmbeddings "
                    "and EmbeddingsFinisher. Use transform for the whole pipeline."
                )
            self._stages.append(stage)
        self._text_column = _text_column(self._stages)

    def annotate(self, target: str | list[str]) -> dict[str, list[Any]] | list[dict[str, list[Any]]]:
        """The results by column: a dict of lists for one text, a list of dicts for a list of texts.

        An annotation is given as its ``result``, or with ``parse_embeddings`` as its vector, a list of
        floats; a column without annotations is given as it is.
        """
        plain = [{name: self._plain(cell) for name, cell in row.items()} for row in self._rows(target)]
        return plain[0] if isinstance(target, str) else plain

    def fullAnnotate(self, target: str | list[str]) -> list[dict[str, list[Any]]]:
        """The annotations by column, a dict for each text: objects with ``result``, ``embeddings`` and the rest."""
        return self._rows(target)

    def transform(self, dataset: Any) -> Any:
        """`PipelineModel.transform`, for a DataFrame."""
        return self.pipeline_model.transform(dataset)

    def _rows(self, target: str | list[str]) -> list[dict[str, list[Any]]]:
        """One dict of cells for each text, without the text itself."""
        texts = [target] if isinstance(target, str) else target
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise TypeError("the target of an annotation is a str or a list of str")
        columns: dict[str, list[Any]] = {self._text_column: list(texts)}
        for stage in self._stages:
            columns = stage._transform_rows(columns)
        return [
            {name: cells[i] for name, cells in columns.items() if name != self._text_column} for i in range(len(texts))
        ]

    def _plain(self, cell: Any) -> Any:
        if not isinstance(cell, list) or not any(isinstance(one, Annotation) for one in cell):
            return cell
        return [
            one.embeddings if self.parse_embeddings and one.annotator_type in EMBEDDINGS else one.result for one in cell
        ]


def _text_column(stages: list[Any]) -> str:
    """The one column that the stages read and none of them makes."""
    made: set[str] = set()
    free: list[str] = []
    for stage in stages:
        inputs = [stage.getInputCol()] if isinstance(stage, HasInputCol) else stage.getInputCols()
        free += [name for name in inputs if name not in made and name not in free]
        made.update(stage._output_names())
    if len(free) != 1:
        raise ValueError(
            f"LightPipeline gives texts to one column, but the stages read {free or 'none'} from outside the pipeline"
        )
    return free[0]
