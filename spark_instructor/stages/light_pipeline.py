"""LightPipeline: a fitted pipeline that runs on the driver for a few texts, without a Spark job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from pyspark.ml import PipelineModel

from .annotation import SENTENCE_EMBEDDINGS
from .base import PLAIN_VECTORS, TEXT, Stage


class LightPipeline:
    """Runs the stages of a `PipelineModel` on texts in this process, as Spark NLP's class of this name does.

    The stages may be `DocumentAssembler`, `InstructorEmbeddings`, `EmbeddingsFinisher` and PipelineModels of these.
    The input column of the first stage receives the texts. All texts of a call are embedded together, and the
    vectors are those of `transform`.

    Raises TypeError for a stage of another kind, and ValueError if a stage reads a column that does not exist or
    holds something else, or if it creates a column that exists already.
    """

    def __init__(self, pipelineModel: PipelineModel, parse_embeddings: bool = False) -> None:
        if not isinstance(pipelineModel, PipelineModel):
            raise TypeError(
                f"LightPipeline takes the PipelineModel that Pipeline.fit returns, not a {type(pipelineModel).__name__}"
            )
        self.pipeline_model = pipelineModel
        self.parse_embeddings = parse_embeddings
        self._stages = list(_flatten(pipelineModel))
        self._text_column, self._output_kinds = _check_stages(self._stages)

    @overload
    def annotate(self, target: str) -> dict[str, list[Any]]: ...

    @overload
    def annotate(self, target: list[str]) -> list[dict[str, list[Any]]]: ...

    def annotate(self, target: str | list[str]) -> dict[str, list[Any]] | list[dict[str, list[Any]]]:
        """Return the results by column: a dict of lists for one text, and a list of dicts for a list of texts.

        An annotation is represented by its ``result``, or with ``parse_embeddings`` by its vector, a list of floats.
        A column without annotations is returned as it is.
        """
        results = [
            {name: self._simplify(name, cell) for name, cell in row.items()} for row in self.fullAnnotate(target)
        ]
        return results[0] if isinstance(target, str) else results

    def fullAnnotate(self, target: str | list[str]) -> list[dict[str, list[Any]]]:
        """Return the annotations by column: for each text a dict of lists of `Annotation`."""
        texts = [target] if isinstance(target, str) else target
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise TypeError("the target of an annotation is a str or a list of str")
        columns: dict[str, list[Any]] = {self._text_column: list(texts)}
        for stage in self._stages:
            columns = stage.transform_rows(columns)
        return [{name: columns[name][i] for name in self._output_kinds} for i in range(len(texts))]

    def transform(self, dataset: Any) -> Any:
        """Transform a DataFrame with the `PipelineModel`."""
        return self.pipeline_model.transform(dataset)

    def _simplify(self, name: str, cell: list[Any]) -> list[Any]:
        kind = self._output_kinds[name]
        if kind == PLAIN_VECTORS:
            return cell
        if kind == SENTENCE_EMBEDDINGS and self.parse_embeddings:
            return [annotation.embeddings for annotation in cell]
        return [annotation.result for annotation in cell]


def _flatten(model: PipelineModel) -> Iterator[Stage]:
    """Yield the stages of a model and of the models inside it, in order."""
    for stage in model.stages:
        if isinstance(stage, PipelineModel):
            yield from _flatten(stage)
        elif isinstance(stage, Stage):
            yield stage
        else:
            raise TypeError(
                f"LightPipeline cannot run {type(stage).__name__}: it runs DocumentAssembler, InstructorEmbeddings "
                "and EmbeddingsFinisher. Use transform for the whole pipeline."
            )


def _check_stages(stages: list[Stage]) -> tuple[str, dict[str, str]]:
    """Return the name of the text column, and the names of the output columns with their kinds."""
    if not stages:
        raise ValueError("LightPipeline needs a pipeline with stages")
    text_column = stages[0].list_inputs()[0]
    kinds = {text_column: TEXT}
    for stage in stages:
        class_name = type(stage).__name__
        added: dict[str, str] = {}
        for name, output in zip(stage.list_inputs(), stage.list_outputs(), strict=True):
            if name not in kinds:
                raise ValueError(
                    f"{class_name}: there is no column {name!r}; LightPipeline passes texts only to {text_column!r}"
                )
            if kinds[name] not in stage.output_kinds:
                expected = " or ".join(stage.output_kinds)
                raise ValueError(f"{class_name}: column {name!r} holds {kinds[name]}, expected {expected}")
            if output in kinds or output in added:
                raise ValueError(f"{class_name}: the output column {output!r} exists already; choose another name")
            added[output] = stage.output_kinds[kinds[name]]
        kinds.update(added)
        if stage.drops_annotations:
            kinds = {name: kind for name, kind in kinds.items() if kind in (TEXT, PLAIN_VECTORS)}
    del kinds[text_column]
    return text_column, kinds
