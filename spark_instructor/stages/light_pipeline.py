"""LightPipeline: a fitted pipeline that runs on the driver for a few texts, without a Spark job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from pyspark.ml import PipelineModel, Transformer
from pyspark.sql import SparkSession

from ..columns import match_names
from .annotation import SENTENCE_EMBEDDINGS, Annotation
from .assembler import DocumentAssembler
from .base import PLAIN_VECTORS, TEXT, Stage
from .finisher import EmbeddingsFinisher

_SPARK_NLP_STAGES: dict[str, type[Stage]] = {
    "DocumentAssembler": DocumentAssembler,
    "EmbeddingsFinisher": EmbeddingsFinisher,
}
"""For stages of Spark NLP the classes of this package that do the same."""


class LightPipeline:
    """Runs the stages of a `PipelineModel` on texts in this process, as Spark NLP's class of this name does.

    The stages may be those of this package, PipelineModels of these, and Spark NLP's DocumentAssembler and
    EmbeddingsFinisher, which are replaced by the stages of this package. Stages of Spark ML and of other libraries are
    skipped, as in Spark NLP. The input column of the first stage receives the texts. All texts of a call are embedded
    together, and the vectors are those of `transform`.

    Args:
        pipelineModel: The fitted pipeline.
        parse_embeddings: Whether `annotate` returns the vectors of embeddings instead of their texts.
        output_cols: Names of the columns to return; all if this is None.

    Raises TypeError for anything but a PipelineModel, and ValueError if a stage reads a column that does not exist or
    holds something else, if it creates a column that exists already, and if no stage creates one of the
    ``output_cols``. Other stages of Spark NLP cannot run here: `annotate` and `fullAnnotate` raise TypeError unless
    `setIgnoreUnsupported` was called.
    """

    def __init__(
        self, pipelineModel: PipelineModel, parse_embeddings: bool = False, output_cols: Sequence[str] | None = None
    ) -> None:
        if not isinstance(pipelineModel, PipelineModel):
            raise TypeError(
                f"LightPipeline takes the PipelineModel that Pipeline.fit returns, not a {type(pipelineModel).__name__}"
            )
        self.pipeline_model = pipelineModel
        self.parse_embeddings = parse_embeddings
        self._ignores_unsupported = False
        stages = list(_flatten(pipelineModel))
        self._stages = [stage for stage in stages if isinstance(stage, Stage)]
        self._skipped = [stage for stage in stages if not isinstance(stage, Stage)]
        self._text_column, self._output_kinds = _check_stages(self._stages, self._skipped)
        if output_cols is not None:
            self._output_kinds = {name: _Columns(self._output_kinds)[name] for name in output_cols}

    def setIgnoreUnsupported(self, value: bool) -> LightPipeline:
        """Set whether to skip the stages of Spark NLP that cannot run here, instead of raising a TypeError."""
        self._ignores_unsupported = bool(value)
        return self

    def getIgnoreUnsupported(self) -> bool:
        """Return whether stages of Spark NLP that cannot run here are skipped."""
        return self._ignores_unsupported

    @overload
    def annotate(
        self, target: str, texts: None = None, metadata: Mapping[str, str] | None = None
    ) -> dict[str, list[Any]]: ...

    @overload
    def annotate(
        self, target: Sequence[Any], texts: Sequence[str] | None = None, metadata: Mapping[str, str] | None = None
    ) -> list[dict[str, list[Any]]]: ...

    def annotate(
        self,
        target: str | Sequence[Any],
        texts: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, list[Any]] | list[dict[str, list[Any]]]:
        """Return the results by column: a dict of lists for one text, and a list of dicts for a list of texts.

        An annotation is represented by its ``result``, or with ``parse_embeddings`` by its vector, a list of floats.
        A column without annotations is returned as it is. The arguments are those of `fullAnnotate`.
        """
        rows = self.fullAnnotate(target, texts, metadata)
        results = [{name: self._simplify(name, cell) for name, cell in row.items()} for row in rows]
        return results[0] if isinstance(target, str) else results

    def fullAnnotate(
        self,
        target: str | Sequence[Any],
        texts: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[dict[str, list[Any]]]:
        """Return the annotations by column: for each text a dict of lists of `Annotation`.

        Args:
            target: A text or a list of texts; or a list of ids, one per text, if ``texts`` is given. The metadata of
                the annotations then contain the ``id``, as with ``idCol`` of `DocumentAssembler`.
            texts: The texts, if ``target`` holds their ids.
            metadata: Entries for the metadata of all annotations, as with ``metadataCol`` of `DocumentAssembler`.
        """
        if not self._ignores_unsupported:
            self._check_skipped()
        ids: Sequence[Any] | None = None
        if texts is not None:
            ids, target = target, texts
        cells = [target] if isinstance(target, str) else target
        if not isinstance(cells, (list, tuple)) or not all(isinstance(text, str) for text in cells):
            raise TypeError("the target of an annotation is a str or a list of str")
        if ids is not None and len(ids) != len(cells):
            raise ValueError(f"there are {len(ids)} ids for {len(cells)} texts; pass one id per text")
        columns = _Columns({self._text_column: list(cells)})
        for stage in self._stages:
            columns = _Columns(stage.transform_rows(columns))
        rows = [{name: columns[name][i] for name in self._output_kinds} for i in range(len(cells))]
        for i, row in enumerate(rows):
            added = {**(metadata or {}), **({} if ids is None else {"id": str(ids[i])})}
            for annotation in _list_annotations(row):
                annotation.metadata = {**added, **annotation.metadata}
        return rows

    def transform(self, dataset: Any) -> Any:
        """Transform a DataFrame with the `PipelineModel`."""
        return self.pipeline_model.transform(dataset)

    def _check_skipped(self) -> None:
        for stage in self._skipped:
            if _is_spark_nlps(stage):
                raise TypeError(
                    f"LightPipeline cannot run {type(stage).__name__}, a stage of Spark NLP that runs on the JVM. Use "
                    "transform for the whole pipeline, or setIgnoreUnsupported(True) to skip the stage."
                )

    def _simplify(self, name: str, cell: list[Any]) -> list[Any]:
        kind = self._output_kinds[name]
        if kind == PLAIN_VECTORS:
            return cell
        if kind == SENTENCE_EMBEDDINGS and self.parse_embeddings:
            return [annotation.embeddings for annotation in cell]
        return [annotation.result for annotation in cell]


class _Columns(dict[str, Any]):
    """Values by the names of columns, found as Spark finds columns: it may ignore case."""

    def __missing__(self, name: str) -> Any:
        matches = match_names(self, name, SparkSession.getActiveSession())
        if not matches:
            raise ValueError(
                f"LightPipeline: there is no column {name!r}; the columns are {', '.join(map(repr, self))}"
            )
        return self[matches[0]]


def _flatten(model: PipelineModel) -> Iterator[Transformer]:
    """Yield the stages of a model and of the models inside it, in order."""
    for stage in model.stages:
        if isinstance(stage, PipelineModel):
            yield from _flatten(stage)
        else:
            replacement = _SPARK_NLP_STAGES.get(type(stage).__name__) if _is_spark_nlps(stage) else None
            yield stage if replacement is None else _replace(stage, replacement)


def _is_spark_nlps(stage: Transformer) -> bool:
    return type(stage).__module__.partition(".")[0] in ("sparknlp", "sparknlp_jsl")


def _replace(stage: Transformer, replacement: type[Stage]) -> Stage:
    """Return a stage of this package with the Params of Spark NLP's stage of the same name."""
    new: Stage = replacement()
    params = {param.name: value for param, value in stage.extractParamMap().items() if new.hasParam(param.name)}
    # It stores a list of no names for names that are not set.
    new._set(**{name: value for name, value in params.items() if value != []})
    return new


def _list_annotations(row: dict[str, list[Any]]) -> Iterator[Annotation]:
    return (item for cell in row.values() for item in cell if isinstance(item, Annotation))


def _check_stages(stages: list[Stage], skipped: list[Transformer]) -> tuple[str, dict[str, str]]:
    """Return the name of the text column, and the names of the output columns with their kinds."""
    if not stages:
        raise ValueError("LightPipeline needs a pipeline with stages of spark_instructor")
    session = SparkSession.getActiveSession()
    text_column = stages[0].list_inputs()[0]
    kinds = {text_column: TEXT}
    for stage in stages:
        class_name = type(stage).__name__
        added: dict[str, str] = {}
        for name, output in zip(stage.list_inputs(), stage.list_outputs(), strict=True):
            matches = match_names(kinds, name, session)
            if not matches:
                names = ", ".join(type(other).__name__ for other in skipped)
                hint = f", and it does not run {names}" if skipped else ""
                raise ValueError(
                    f"{class_name}: there is no column {name!r}; LightPipeline passes texts only to {text_column!r}"
                    f"{hint}"
                )
            kind = kinds[matches[0]]
            if kind not in stage.output_kinds:
                expected = " or ".join(stage.output_kinds)
                raise ValueError(f"{class_name}: column {name!r} holds {kind}, expected {expected}")
            if match_names([*kinds, *added], output, session):
                raise ValueError(f"{class_name}: the output column {output!r} exists already; choose another name")
            added[output] = stage.output_kinds[kind]
        kinds.update(added)
        if stage.drops_annotations:
            kinds = {name: kind for name, kind in kinds.items() if kind in (TEXT, PLAIN_VECTORS)}
    del kinds[text_column]
    return text_column, kinds
