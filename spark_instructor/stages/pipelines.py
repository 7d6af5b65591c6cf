"""Saving and loading pipelines in the layout of Spark ML, through Spark's data sources.

pyspark's own functions for pipelines need a SparkContext on some clients of Spark Connect (those of Spark 3.5 and of
Databricks before 17), at the latest if they overwrite.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.param import Params
from pyspark.ml.util import (
    DefaultParamsReadable,
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import SparkSession

from ..files import escape_pattern
from .persistence import (
    INTERRUPTED,
    PersistentStage,
    StageContent,
    StageReader,
    create_folder,
    read_metadata,
    restore_params,
    write_content,
    write_metadata,
)

_PIPELINES = (Pipeline, PipelineModel)

Content = StageContent | MLWriter | Params
"""What is written to one folder: a stage of this package, another stage by its own writer, or only metadata."""


def save_pipeline(pipeline: Pipeline | PipelineModel, path: str, overwrite: bool = False) -> None:
    """Save a pipeline, fitted or not, to a path or a URI that Spark can write.

    It writes what ``pipeline.save(path)`` writes, but also works on clients of Spark Connect on which that fails.
    pyspark can load the result, and `load_pipeline` can load what pyspark saved. Stages that run on the JVM are saved
    by their own writers, so they need a client that can save such a stage.

    Raises an AnalysisException if the path exists and ``overwrite`` is False. Raises ValueError, and deletes nothing,
    if a stage cannot be saved or if the path holds the model of a stage.
    """
    if type(pipeline) not in _PIPELINES:
        raise TypeError(
            f"save_pipeline expects a Pipeline or a PipelineModel, not a {type(pipeline).__name__}. "
            "Save a stage with stage.write().save(path)."
        )
    spark = MLWriter().sparkSession
    contents = list(_collect_contents(pipeline, path))  # before anything is deleted, since it may fail
    sources = [folder for _, content in contents if isinstance(content, StageContent) for folder in content.sources]
    create_folder(spark, path, sources, overwrite=overwrite)
    for folder, content in contents:
        if isinstance(content, StageContent):
            write_content(spark, folder, content)
        elif isinstance(content, MLWriter):
            content.save(folder)
        else:
            write_metadata(spark, folder, content, _describe_stages(content))


def load_pipeline(path: str) -> Any:
    """Load a Pipeline or a PipelineModel that `save_pipeline` or pyspark saved.

    Raises ValueError if ``path`` holds something else or an incomplete pipeline, and what the stages raise when they
    are loaded.
    """
    spark: SparkSession = MLReader[Any]().sparkSession
    metadata = read_metadata(spark, path)
    if _find_class(metadata) not in _PIPELINES:
        raise ValueError(
            f"{path} holds a {metadata['class']}, expected a Pipeline or a PipelineModel. "
            "Load it with the load of its class."
        )
    return _load(spark, path, metadata)


def _collect_contents(stage: Params, path: str) -> Iterator[tuple[str, Content]]:
    """Collect what is saved for a stage and the stages in it, each with its folder."""
    if isinstance(stage, PersistentStage):
        yield path, stage.collect_content()
    elif type(stage) in _PIPELINES:
        yield path, stage
        stages = _list_stages(stage)
        for child, folder in zip(stages, _list_folders([child.uid for child in stages], path), strict=True):
            yield from _collect_contents(child, folder)
    elif isinstance(stage, MLWritable):
        writer = stage.write()
        # Some clients need a SparkContext even for stages that have nothing but Params.
        yield path, stage if type(writer) is DefaultParamsWriter else writer
    else:
        raise ValueError(
            f"{type(stage).__name__} ({stage.uid}) cannot be saved: it is not MLWritable. Derive it from "
            "DefaultParamsWritable and DefaultParamsReadable, or leave it out of the pipeline."
        )


def _load(spark: SparkSession, path: str, metadata: dict[str, Any]) -> Any:
    cls = _find_class(metadata)
    if issubclass(cls, PersistentStage):
        return StageReader(cls).restore(path, metadata)
    if cls in _PIPELINES:
        stages = []
        for folder in _list_folders(metadata["paramMap"]["stageUids"], path):
            try:
                found = read_metadata(spark, folder)
            except AnalysisException as error:
                raise ValueError(f"{path} is incomplete: {folder} is missing. {INTERRUPTED}") from error
            stages.append(_load(spark, folder, found))
        return cls(stages=stages)._resetUid(metadata["uid"])
    if issubclass(cls, DefaultParamsReadable) and type(cls.read()) is DefaultParamsReader:
        return restore_params(cls, metadata)
    return cls.load(escape_pattern(path))  # Spark ML's readers take a pattern


def _find_class(metadata: dict[str, Any]) -> Any:
    """Find the Python class that the metadata name, as pyspark does it."""
    module, _, name = metadata["class"].replace("org.apache.spark", "pyspark").rpartition(".")
    return getattr(import_module(module), name)


def _list_stages(pipeline: Any) -> list[Any]:
    return pipeline.getStages() if isinstance(pipeline, Pipeline) else pipeline.stages


def _describe_stages(instance: Params) -> dict[str, Any] | None:
    """Return what stands for the Params of a pipeline in its metadata; None for a stage."""
    if type(instance) not in _PIPELINES:
        return None
    return {"stageUids": [stage.uid for stage in _list_stages(instance)], "language": "Python"}


def _list_folders(uids: list[str], path: str) -> list[str]:
    """List the folders of a pipeline's stages, as Spark ML names them."""
    digits = len(str(len(uids)))
    return [f"{path}/stages/{i:0{digits}}_{uid}" for i, uid in enumerate(uids)]
