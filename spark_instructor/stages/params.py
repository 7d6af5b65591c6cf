"""What the Params of all stages share: how values are converted and checked, and the Params of several stages.

A Param's converter checks its value, so the constructor, the setter and a param map share the check.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np
from pyspark.ml.param import Param, Params, TypeConverters

Self = TypeVar("Self", bound=Params)
T = TypeVar("T")


# Classes, since a stage can be pickled only if its converters can. Both name the Param in their ValueError: pyspark
# adds the name to a TypeError alone.
@dataclasses.dataclass(frozen=True)
class OneOf:
    """Converts a value that must be one of several strings."""

    name: str
    allowed: tuple[str, ...]

    def __call__(self, value: Any) -> str:
        """Return the value; raise ValueError if it is not allowed."""
        if value not in self.allowed:
            raise ValueError(f"{self.name} is {value!r}, expected one of {', '.join(self.allowed)}")
        return str(value)


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """Converts a value to an int that must not be less than a minimum."""

    name: str
    minimum: int

    def __call__(self, value: Any) -> int:
        """Return the value as an int; raise ValueError if it is too small and TypeError if it is no int."""
        number: int = TypeConverters.toInt(value)
        if number < self.minimum:
            raise ValueError(f"{self.name} is {number}, expected at least {self.minimum}")
        return number


def to_strings(value: Any) -> list[str]:
    """Convert one string or several to a list."""
    return [value] if isinstance(value, str) else TypeConverters.toListString(list(value))


class StageParams(Params):
    """Setting and getting the Params of a stage."""

    _input_kwargs: dict[str, Any]  # pyspark's keyword_only stores the arguments of the constructor here

    def _set(self: Self, **values: Any) -> Self:
        """Set Params; the converters check the values. None clears a Param, so its default applies again."""
        for name, value in values.items():
            if value is None:
                self.clear(self.getParam(name))
        # Spark ML refuses some numbers and booleans of numpy, and keeps its strings.
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        return super()._set(**{name: value for name, value in plain.items() if value is not None})

    def _get(self, param: Param[T]) -> T | None:
        """Return the value of a Param, or None if it is not set and has no default."""
        return self.getOrDefault(param) if self.isDefined(param) else None

    def _get_required(self, param: Param[T]) -> T:
        """Return the value of a Param; raise ValueError, naming the setter, if it has none."""
        if not self.isDefined(param) or not self.getOrDefault(param):
            setter = f"set{param.name[0].upper()}{param.name[1:]}"
            raise ValueError(f"{type(self).__name__} needs {param.name}: call {setter}(...)")
        return self.getOrDefault(param)


class HasInputCols(StageParams):
    """Mixin for the Param inputCols."""

    inputCols: Param[list[str]] = Param(Params._dummy(), "inputCols", "names of the input columns", to_strings)

    def setInputCols(self: Self, *value: str | list[str] | tuple[str, ...]) -> Self:
        """Set the names of the input columns: one string, several strings, or a list."""
        return self._set(inputCols=value[0] if len(value) == 1 else value)

    def getInputCols(self) -> list[str]:
        """Return the names of the input columns; raise ValueError if they are not set."""
        return self._get_required(self.inputCols)


class HasOutputCol(StageParams):
    """Mixin for the Param outputCol."""

    outputCol: Param[str] = Param(Params._dummy(), "outputCol", "name of the output column", TypeConverters.toString)

    def setOutputCol(self: Self, value: str) -> Self:
        """Set the name of the output column."""
        return self._set(outputCol=value)

    def getOutputCol(self) -> str:
        """Return the name of the output column; raise ValueError if it is not set."""
        return self._get_required(self.outputCol)


class HasOutputCols(StageParams):
    """Mixin for the Param outputCols."""

    outputCols: Param[list[str]] = Param(
        Params._dummy(), "outputCols", "names of the output columns, one per input column", to_strings
    )

    def setOutputCols(self: Self, *value: str | list[str] | tuple[str, ...]) -> Self:
        """Set the names of the output columns: one string, several strings, or a list."""
        return self._set(outputCols=value[0] if len(value) == 1 else value)

    def getOutputCols(self) -> list[str]:
        """Return the names of the output columns; raise ValueError if they are not set."""
        return self._get_required(self.outputCols)


class HasLazyAnnotator(StageParams):
    """Mixin for the Param lazyAnnotator."""

    lazyAnnotator: Param[bool] = Param(
        Params._dummy(), "lazyAnnotator", "has no effect outside of RecursivePipeline", TypeConverters.toBoolean
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(lazyAnnotator=False)

    def setLazyAnnotator(self: Self, value: bool) -> Self:
        """Accept the setting of a Spark NLP pipeline. It has no effect: it concerns its RecursivePipeline."""
        return self._set(lazyAnnotator=value)

    def getLazyAnnotator(self) -> bool:
        """Return what was set; it has no effect."""
        return self.getOrDefault(self.lazyAnnotator)
