"""The base class of all stages."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import Any, ClassVar

from pyspark.ml import Transformer
from pyspark.sql import DataFrame

from .persistence import PersistentStage

TEXT = "text"
"""Kind of a column that holds texts, for `Stage.output_kinds`."""
PLAIN_VECTORS = "vectors"
"""Kind of a column that holds vectors without annotations, for `Stage.output_kinds`."""


class Stage(Transformer, PersistentStage):
    """A Transformer that appends columns, to a DataFrame or to rows on the driver, and that can be saved.

    Subclasses implement `list_inputs`, `list_outputs`, `transform_rows` and Spark ML's ``_transform``.
    """

    output_kinds: ClassVar[dict[str, str]]
    """For each kind of column that the stage reads, the kind that it creates. A kind is the annotatorType of a
    column of annotations, or one of `TEXT` and `PLAIN_VECTORS`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(f"{__package__}."):
            cls.__module__ = "spark_instructor"  # saved pipelines contain this path, whichever file holds the class

    def __new__(cls, *args: Any, **params: Any) -> Any:
        """Create a stage; raise TypeError for a parameter that it does not have."""
        known = list(inspect.signature(cls.__init__).parameters)[1:]
        for name in params:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no parameter {name!r}{_suggest(name, known)}")
        return super().__new__(cls)

    def __getattr__(self, name: str) -> Any:
        suggestion = "" if name.startswith("_") else _suggest(name, dir(self))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{suggestion}")

    def transform(self, dataset: DataFrame, params: Any = None) -> DataFrame:
        """Append the output columns to a DataFrame. ``params`` may override Params of the stage.

        Raises TypeError if ``dataset`` is something other than a Spark DataFrame.
        """
        if not hasattr(dataset, "sparkSession"):
            raise TypeError(
                f"{type(self).__name__}.transform takes a Spark DataFrame, got a {type(dataset).__name__}. Convert a "
                "DataFrame of pandas with spark.createDataFrame(...), and one of pyspark.pandas with to_spark(); for a "
                "list of texts, use LightPipeline"
            )
        return super().transform(dataset, params)

    @property
    def drops_annotations(self) -> bool:
        """Whether the stage drops all annotation columns after it has read them."""
        return False

    def list_inputs(self) -> list[str]:
        """Return the names of the input columns; raise ValueError if they are not set."""
        raise NotImplementedError

    def list_outputs(self) -> list[str]:
        """Return the names of the output columns, one per input column.

        Raises ValueError if they are not set or if their number differs from the number of input columns.
        """
        raise NotImplementedError

    def transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Do on the driver what `transform` does: return the columns of ``rows`` and the output columns.

        A column is a list with one cell per row: a str, a list of `Annotation`, or a list of vectors.
        """
        raise NotImplementedError


def _suggest(name: str, known: list[str]) -> str:
    """Return a question that names the known name most similar to ``name``; empty if none is similar."""
    similar = get_close_matches(name, known, n=1, cutoff=0.8)
    return f"; did you mean {similar[0]!r}?" if similar else ""
