"""One mixin for each Param: its default, its check and its setter.

The check stands in the Param's converter, so that the constructor, the setter and a param map share it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters

from ..encoder.windows import LONG_TEXT
from ..models.prepared import PRECISIONS

Self = TypeVar("Self", bound=Params)
T = TypeVar("T")

CLEANUP_MODES = (
    "disabled",
    "inplace",
    "inplace_full",
    "shrink",
    "shrink_full",
    "each",
    "each_full",
    "delete_full",
)


# pyspark adds the Param's name to a converter's TypeError but not to its ValueError, so these two name it.
def _one_of(name: str, *allowed: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
        return str(value)

    return convert


def _at_least(name: str, least: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        number: int = TypeConverters.toInt(value)
        if number < least:
            raise ValueError(f"{name} is {number}, expected at least {least}")
        return number

    return convert


def _column_names(value: Any) -> list[str]:
    """One name, or a list of names, as a list."""
    return [value] if isinstance(value, str) else TypeConverters.toListString(value)


class _Params(Params):
    _input_kwargs: dict[str, Any]  # what pyspark's keyword_only leaves of a constructor's arguments

    def _set(self: Self, **values: Any) -> Self:
        """Set Params, checked by their converters; None unsets one, so that its default holds."""
        for name, value in values.items():
            if value is None:
                self.clear(self.getParam(name))
        return super()._set(**{name: value for name, value in values.items() if value is not None})

    def _get(self, param: Param[T]) -> T | None:
        """The Param's value; None where it is neither set nor has a default."""
        return self.getOrDefault(param) if self.isDefined(param) else None

    def _required(self, param: Param[T]) -> T:
        """The Param's value; ValueError, naming its setter, where there is none."""
        if not self.isDefined(param) or not self.getOrDefault(param):
            setter = f"set{param.name[0].upper()}{param.name[1:]}"
            raise ValueError(f"{type(self).__name__} needs {param.name}: call {setter}(...)")
        return self.getOrDefault(param)


class HasInputCol(_Params):
    """The one column that a stage reads."""

    inputCol: Param[str] = Param(Params._dummy(), "inputCol", "input column", TypeConverters.toString)

    def setInputCol(self: Self, value: str) -> Self:
        """Set the name of the input column."""
        return self._set(inputCol=value)

    def getInputCol(self) -> str:
        """Name of the input column."""
        return self._required(self.inputCol)


class HasInputCols(_Params):
    """The columns that a stage reads."""

    inputCols: Param[list[str]] = Param(Params._dummy(), "inputCols", "input columns", _column_names)

    def setInputCols(self: Self, *value: str | list[str] | tuple[str, ...]) -> Self:
        """Set the names of the input columns: one str, several, or a list."""
        return self._set(inputCols=value[0] if len(value) == 1 else value)

    def getInputCols(self) -> list[str]:
        """Names of the input columns."""
        return self._required(self.inputCols)


class HasOutputCol(_Params):
    """The column that a stage adds."""

    outputCol: Param[str] = Param(Params._dummy(), "outputCol", "output column", TypeConverters.toString)

    def setOutputCol(self: Self, value: str) -> Self:
        """Set the name of the output column."""
        return self._set(outputCol=value)

    def getOutputCol(self) -> str:
        """Name of the output column."""
        return self._required(self.outputCol)


class HasOutputCols(_Params):
    """The columns that a stage adds, one for each input column."""

    outputCols: Param[list[str]] = Param(
        Params._dummy(),
        "outputCols",
        "output columns, one for each input column",
        _column_names,
    )

    def setOutputCols(self: Self, *value: str | list[str] | tuple[str, ...]) -> Self:
        """Set the names of the output columns: one str, several, or a list."""
        return self._set(outputCols=value[0] if len(value) == 1 else value)

    def getOutputCols(self) -> list[str]:
        """Names of the output columns."""
        return self._required(self.outputCols)


class HasModel(_Params):
    """The checkpoint: a known name, a hub id or a folder."""

    model: Param[str] = Param(
        Params._dummy(), "model", "known name, hub id or folder of the checkpoint", TypeConverters.toString
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(model="instructor_base")

    def setModel(self: Self, value: str) -> Self:
        """Set the checkpoint: a known name (`known_models`), a hub id ("owner/name") or a folder."""
        return self._set(model=value)

    def getModel(self) -> str:
        """Known name, hub id or folder of the checkpoint."""
        return self.getOrDefault(self.model)


class HasRevision(_Params):
    """The revision of a checkpoint on the hub."""

    revision: Param[str] = Param(
        Params._dummy(), "revision", "branch, tag or commit of a hub checkpoint", TypeConverters.toString
    )

    def setRevision(self: Self, value: str) -> Self:
        """Pin a checkpoint of the hub to a branch, a tag or (best) a commit."""
        return self._set(revision=value)

    def getRevision(self) -> str | None:
        """Revision of the hub checkpoint; None for the hub's default branch."""
        return self._get(self.revision)


class HasInstruction(_Params):
    """The instruction in front of every text."""

    instruction: Param[str] = Param(
        Params._dummy(), "instruction", "instruction put in front of every text", TypeConverters.toString
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(instruction="")

    def setInstruction(self: Self, value: str) -> Self:
        """Set the instruction. It is joined to the text as it is, so end it with a space or a colon."""
        return self._set(instruction=value)

    def getInstruction(self) -> str:
        """Instruction of the stage."""
        return self.getOrDefault(self.instruction)


class HasInstructionCol(_Params):
    """A column with an instruction for each row."""

    instructionCol: Param[str] = Param(
        Params._dummy(),
        "instructionCol",
        "string column with the instruction of each row",
        TypeConverters.toString,
    )

    def setInstructionCol(self: Self, value: str) -> Self:
        """Take each row's instruction from a string column; it wins over `instruction`, null is empty."""
        return self._set(instructionCol=value)

    def getInstructionCol(self) -> str | None:
        """Name of the column with the instructions; None where the stage has one instruction."""
        return self._get(self.instructionCol)


class HasBatchSize(_Params):
    """Most texts of one pass through the model."""

    batchSize: Param[int] = Param(
        Params._dummy(), "batchSize", "most texts of one forward pass", _at_least("batchSize", 1)
    )

    def setBatchSize(self: Self, value: int) -> Self:
        """Cap the texts of a pass. Seldom needed: unset, passes are cut by their number of tokens."""
        return self._set(batchSize=value)

    def getBatchSize(self) -> int | None:
        """Most texts of a pass; None where only the number of tokens counts."""
        return self._get(self.batchSize)


class HasMaxSentenceLength(_Params):
    """Most tokens of a text that the model reads, instruction and ``</s>`` included."""

    maxSentenceLength: Param[int] = Param(
        Params._dummy(),
        "maxSentenceLength",
        "most tokens read of instruction + text",
        _at_least("maxSentenceLength", 2),
    )

    def setMaxSentenceLength(self: Self, value: int) -> Self:
        """Set the token limit, at least 2; over the checkpoint's own it is a ValueError at `transform`."""
        return self._set(maxSentenceLength=value)


class HasPrecision(_Params):
    """The number format of the weights and the matrix products."""

    precision: Param[str] = Param(
        Params._dummy(), "precision", f"one of {', '.join(PRECISIONS)}", _one_of("precision", *PRECISIONS)
    )

    def setPrecision(self: Self, value: str) -> Self:
        """Set "float32", "bfloat16" or "int8". Vectors of one index should come from one precision.

        Weights and products are in that format; sums, norms and the vectors are float32. "int8" is for CPUs
        (its products on a GPU are not in integers), and rounds more than "bfloat16" does.
        """
        return self._set(precision=value)


class HasDevice(_Params):
    """Where the executors compute."""

    device: Param[str] = Param(
        Params._dummy(),
        "device",
        "auto, cpu or cuda; resolved on the executor",
        _one_of("device", "auto", "cpu", "cuda"),
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(device="auto")

    def setDevice(self: Self, value: str) -> Self:
        """Set "cpu", "cuda", or "auto": the task's GPU where it has one, else the CPU."""
        return self._set(device=value)

    def getDevice(self) -> str:
        """Device that was asked for."""
        return self.getOrDefault(self.device)


class HasLongText(_Params):
    """What becomes of a text over the token limit."""

    longText: Param[str] = Param(
        Params._dummy(), "longText", "truncate or average over windows", _one_of("longText", *LONG_TEXT)
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(longText="truncate")

    def setLongText(self: Self, value: str) -> Self:
        """Set "truncate" (read the beginning) or "average" (over windows, at most 32)."""
        return self._set(longText=value)

    def getLongText(self) -> str:
        """What becomes of a text over the token limit."""
        return self.getOrDefault(self.longText)


class HasSharedFolder(_Params):
    """A folder that the driver and every executor see."""

    sharedFolder: Param[str] = Param(
        Params._dummy(),
        "sharedFolder",
        "folder that the driver and all executors see under this path; the model is read from it",
        TypeConverters.toString,
    )

    def setSharedFolder(self: Self, value: str) -> Self:
        """Keep the prepared model in a folder that all machines see (NFS, a Volume), instead of shipping it."""
        return self._set(sharedFolder=value)

    def getSharedFolder(self) -> str | None:
        """Folder that all machines see; None where the model is shipped."""
        return self._get(self.sharedFolder)


class HasStorageRef(_Params):
    """The name that marks vectors of one model."""

    storageRef: Param[str] = Param(
        Params._dummy(),
        "storageRef",
        "name of the embeddings, in the column metadata",
        TypeConverters.toString,
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(storageRef=self.uid)

    def setStorageRef(self: Self, value: str) -> Self:
        """Set the name that goes to the output column's metadata as ``ref``."""
        return self._set(storageRef=value)

    def getStorageRef(self) -> str:
        """Name in the output column's metadata; the stage's uid where it was not set."""
        return self.getOrDefault(self.storageRef)


class HasCaseSensitive(_Params):
    """Kept for Spark NLP's pipelines; the tokenizer decides, so it has no effect here or there."""

    caseSensitive: Param[bool] = Param(
        Params._dummy(), "caseSensitive", "has no effect for this model", TypeConverters.toBoolean
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(caseSensitive=False)

    def setCaseSensitive(self: Self, value: bool) -> Self:
        """Accepted for Spark NLP's pipelines; has no effect."""
        return self._set(caseSensitive=value)

    def getCaseSensitive(self) -> bool:
        """What was set; has no effect."""
        return self.getOrDefault(self.caseSensitive)


class HasLazyAnnotator(_Params):
    """Kept for Spark NLP's pipelines; lazy stages belong to its RecursivePipeline, so it has no effect."""

    lazyAnnotator: Param[bool] = Param(
        Params._dummy(), "lazyAnnotator", "has no effect outside RecursivePipeline", TypeConverters.toBoolean
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(lazyAnnotator=False)

    def setLazyAnnotator(self: Self, value: bool) -> Self:
        """Accepted for Spark NLP's pipelines; has no effect."""
        return self._set(lazyAnnotator=value)

    def getLazyAnnotator(self) -> bool:
        """What was set; has no effect."""
        return self.getOrDefault(self.lazyAnnotator)


class HasIdCol(_Params):
    """A column whose value goes into each document's metadata as ``id``."""

    idCol: Param[str] = Param(
        Params._dummy(), "idCol", "column that goes into the metadata as id", TypeConverters.toString
    )

    def setIdCol(self: Self, value: str) -> Self:
        """Set the column whose value each document carries as ``id``."""
        return self._set(idCol=value)

    def getIdCol(self) -> str | None:
        """Name of the id column; None where there is none."""
        return self._get(self.idCol)


class HasMetadataCol(_Params):
    """A map<string,string> column that goes into each document's metadata."""

    metadataCol: Param[str] = Param(
        Params._dummy(),
        "metadataCol",
        "map<string,string> column added to the metadata",
        TypeConverters.toString,
    )

    def setMetadataCol(self: Self, value: str) -> Self:
        """Set the map<string,string> column that each document's metadata takes in."""
        return self._set(metadataCol=value)

    def getMetadataCol(self) -> str | None:
        """Name of the metadata column; None where there is none."""
        return self._get(self.metadataCol)


class HasCleanupMode(_Params):
    """How a document's white space is tidied."""

    cleanupMode: Param[str] = Param(
        Params._dummy(), "cleanupMode", f"one of {', '.join(CLEANUP_MODES)}", _one_of("cleanupMode", *CLEANUP_MODES)
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(cleanupMode="disabled")

    def setCleanupMode(self: Self, value: str) -> Self:
        """Set how white space is tidied; see `DocumentAssembler`."""
        return self._set(cleanupMode=value)

    def getCleanupMode(self) -> str:
        """How white space is tidied."""
        return self.getOrDefault(self.cleanupMode)


class HasOutputAsVector(_Params):
    """Whether finished embeddings are pyspark.ml vectors."""

    outputAsVector: Param[bool] = Param(
        Params._dummy(),
        "outputAsVector",
        "give array<vector>, not array<array<float>>",
        TypeConverters.toBoolean,
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(outputAsVector=False)

    def setOutputAsVector(self: Self, value: bool) -> Self:
        """Give pyspark.ml vectors (doubles) instead of arrays of floats."""
        return self._set(outputAsVector=value)

    def getOutputAsVector(self) -> bool:
        """Whether finished embeddings are pyspark.ml vectors."""
        return self.getOrDefault(self.outputAsVector)


class HasCleanAnnotations(_Params):
    """Whether a finisher drops the annotation columns."""

    cleanAnnotations: Param[bool] = Param(
        Params._dummy(), "cleanAnnotations", "drop every annotation column", TypeConverters.toBoolean
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(cleanAnnotations=False)

    def setCleanAnnotations(self: Self, value: bool) -> Self:
        """Drop every annotation column from the output."""
        return self._set(cleanAnnotations=value)

    def getCleanAnnotations(self) -> bool:
        """Whether annotation columns are dropped."""
        return self.getOrDefault(self.cleanAnnotations)
