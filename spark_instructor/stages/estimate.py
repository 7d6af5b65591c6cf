"""What a job costs, from a sample that is embedded here and now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pyspark.sql import DataFrame, Observation

from .params import AtLeast

_BYTES_PER_FLOAT = 4
_MIN_SAMPLE_ROWS = 100  # so that a random sample is never empty: Spark may then drop the observation


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The work of embedding a DataFrame, extrapolated from a sample; `InstructorEmbeddings.estimate` makes it."""

    rows: int
    """Number of rows; this one is not estimated."""
    texts: int
    """Number of texts in all input columns, without nulls."""
    tokens: int
    """Number of tokens that the model would read, including instructions."""
    unknown: float
    """Share of the tokens that stand for characters outside of the model's vocabulary, 0 to 1."""
    truncated: float
    """Share of the texts that would be truncated, 0 to 1."""
    repeated: float
    """Share of the texts in the sample that repeat another one of the sample, 0 to 1. The whole repeats more."""
    core_hours: float
    """Hours that one core would take, at the rate of this machine."""
    vector_bytes: int
    """Size of the vectors as arrays of floats, in bytes."""

    def hours(self, cores: int) -> float:
        """Return the hours that so many cores would take, if each is as fast as the one that embedded the sample."""
        return self.core_hours / cores

    def __str__(self) -> str:
        lines = {
            "rows": f"{self.rows:,}",
            "texts": f"{self.texts:,}",
            "tokens": f"{self.tokens:,}",
            "unknown": f"{self.unknown:.1%}",
            "truncated": f"{self.truncated:.1%}",
            "repeated": f"{self.repeated:.1%}",
            "core-hours": f"{self.core_hours:,.2f}",
            "vectors": f"{self.vector_bytes / 1e9:,.3f} GB",
        }
        return "\n".join(f"  {name:<10}{value:>16}" for name, value in lines.items())


def estimate_job(
    dataset: DataFrame,
    observe: Callable[[DataFrame, Observation], DataFrame],
    dimension: int,
    sample_rows: int,
    rows: int | None,
) -> Estimate:
    """Embed about ``sample_rows`` random rows with ``observe``, in one task, and extrapolate to all ``rows``.

    Raises ValueError if ``sample_rows`` is less than 100, if the DataFrame has no rows or is a stream, or if the sample
    has no rows or no text.
    """
    if sample_rows < _MIN_SAMPLE_ROWS:
        raise ValueError(f"sample_rows is {sample_rows}, expected at least {_MIN_SAMPLE_ROWS}")
    if dataset.isStreaming:
        raise ValueError("the rows of a stream cannot be counted: estimate a DataFrame with the same texts")
    rows = dataset.count() if rows is None else AtLeast("rows", 0)(rows)
    if rows == 0:
        raise ValueError("there is nothing to estimate: the DataFrame has no rows")
    sample = dataset.sample(fraction=sample_rows / rows, seed=0) if rows > sample_rows else dataset
    observation = Observation()
    # In one task, every text of the sample is compared with all others, and no other task takes a core from it.
    observe(sample.repartition(1), observation).write.format("noop").mode("overwrite").save()
    counts = observation.get
    if not counts["rows"]:
        raise ValueError(
            f"the sample has no rows: the DataFrame has far fewer than rows={rows}, or sample_rows is too small"
        )
    if not counts["texts"]:
        raise ValueError(f"the sample of about {sample_rows} rows has no text: pass a larger sample_rows")
    scale = rows / counts["rows"]
    return Estimate(
        rows=rows,
        texts=round(counts["texts"] * scale),
        tokens=round(counts["tokens"] * scale),
        unknown=counts["unknown"] / counts["tokens"],
        truncated=counts["truncated"] / counts["texts"],
        repeated=1 - counts["distinct"] / counts["texts"],
        core_hours=counts["seconds"] * scale / 3600,
        vector_bytes=round(counts["texts"] * scale * dimension * _BYTES_PER_FLOAT),
    )
