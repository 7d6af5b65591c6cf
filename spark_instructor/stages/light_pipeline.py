"""LightPipeline: a fitted pipeline over a few texts on the driver, without a Spark job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from pyspark.ml import PipelineModel

from .annotation import DOCUMENT, SENTENCE_EMBEDDINGS
from .assembler import DocumentAssembler
from .embeddings import InstructorEmbeddings
from .finisher import EmbeddingsFinisher
from .params import HasInputCol

# What each stage makes of what it reads: annotatorTypes, and these two for columns without annotations.
_TEXT, _VECTORS = "text", "vectors"
_MAKES: dict[type, dict[str, str]] = {
    DocumentAssembler: {_TEXT: DOCUMENT},
    InstructorEmbeddings: {_TEXT: _VECTORS, DOCUMENT: SENTENCE_EMBEDDINGS},
    EmbeddingsFinisher: {SENTENCE_EMBEDDINGS: _VECTORS},
}


class LightPipeline:
    """Runs the stages of a `PipelineModel` on texts in this process, as Spark NLP's class of this name does.

    Its stages may be `DocumentAssembler`, `InstructorEmbeddings`, `EmbeddingsFinisher` and PipelineModels of
    these; the first reads the texts, whatever its input column is called. All texts of a call are embedded
    together, and the vectors are those of `transform`.

    Raises TypeError for a stage of another kind, ValueError where a stage reads a column that is not
    there or holds something else, or makes one that is there already.
    """

    def __init__(self, pipelineModel: PipelineModel, parse_embeddings: bool = False) -> None:
        if not isinstance(pipelineModel, PipelineModel):
            raise TypeError(
                f"LightPipeline takes the PipelineModel of Pipeline.fit, not a {type(pipelineModel).__name__}"
            )
        self.pipeline_model = pipelineModel
        self.parse_embeddings = parse_embeddings
        self._stages = list(_flattened(pipelineModel))
        self._text_column, self._made = _check(self._stages)

    @overload
    def annotate(self, target: str) -> dict[str, list[Any]]: ...

    @overload
    def annotate(self, target: list[str]) -> list[dict[str, list[Any]]]: ...

    def annotate(self, target: str | list[str]) -> dict[str, list[Any]] | list[dict[str, list[Any]]]:
        """The results by column: a dict of lists for one text, a list of dicts for a list of texts.

        An annotation is given as its ``result``, or with ``parse_embeddings`` as its vector, a list of
        floats; a column without annotations is given as it is.
        """
        plain = [{name: self._plain(name, cell) for name, cell in row.items()} for row in self.fullAnnotate(target)]
        return plain[0] if isinstance(target, str) else plain

    def fullAnnotate(self, target: str | list[str]) -> list[dict[str, list[Any]]]:
        """The annotations by column, a dict for each text: objects with ``result``, ``embeddings`` and the rest."""
        texts = [target] if isinstance(target, str) else target
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise TypeError("the target of an annotation is a str or a list of str")
        columns: dict[str, list[Any]] = {self._text_column: list(texts)}
        for stage in self._stages:
            columns = stage._transform_rows(columns)
        return [{name: columns[name][i] for name in self._made} for i in range(len(texts))]

    def transform(self, dataset: Any) -> Any:
        """`PipelineModel.transform`, for a DataFrame."""
        return self.pipeline_model.transform(dataset)

    def _plain(self, name: str, cell: list[Any]) -> list[Any]:
        if self._made[name] == _VECTORS:
            return cell
        if self._made[name] == SENTENCE_EMBEDDINGS and self.parse_embeddings:
            return [one.embeddings for one in cell]
        return [one.result for one in cell]


def _flattened(model: PipelineModel) -> Iterator[Any]:
    """The stages of a model and of those inside it, in order."""
    for stage in model.stages:
        if isinstance(stage, PipelineModel):
            yield from _flattened(stage)
        elif isinstance(stage, tuple(_MAKES)):
            yield stage
        else:
            raise TypeError(
                f"LightPipeline cannot run {type(stage).__name__}: it runs DocumentAssembler, InstructorEmbeddings "
                "and EmbeddingsFinisher. Use transform for the whole pipeline."
            )


def _check(stages: list[Any]) -> tuple[str, dict[str, str]]:
    """The column that takes the texts, and the columns that are left beside it, with what they hold."""
    if not stages:
        raise ValueError("LightPipeline needs a pipeline with stages")
    text_column = _input_names(stages[0])[0]
    there = {text_column: _TEXT}
    for stage in stages:
        kind = type(stage).__name__
        makes = next(makes for cls, makes in _MAKES.items() if isinstance(stage, cls))
        made: dict[str, str] = {}
        for name, output in zip(_input_names(stage), stage._output_names(), strict=True):
            if name not in there:
                raise ValueError(
                    f"{kind}: there is no column {name!r}; LightPipeline gives texts to {text_column!r} alone"
                )
            if there[name] not in makes:
                raise ValueError(f"{kind}: column {name!r} holds {there[name]}, expected {' or '.join(makes)}")
            if output in there or output in made:
                raise ValueError(f"{kind}: the output column {output!r} is there already; name another")
            made[output] = makes[there[name]]
        there.update(made)
        if isinstance(stage, EmbeddingsFinisher) and stage.getCleanAnnotations():
            there = {name: held for name, held in there.items() if held in (_TEXT, _VECTORS)}
    del there[text_column]
    return text_column, there


def _input_names(stage: Any) -> list[str]:
    return [stage.getInputCol()] if isinstance(stage, HasInputCol) else stage.getInputCols()
