"""ModelStage: the base class of the stages that use a model, with the Params, the preparation and the files of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import SparkSession

from ..chunks import load_tokenizer
from ..files import local_path
from ..models.host_cache import HostModel, ModelLocation
from ..models.prepared import PRECISIONS, PreparedModel, cached_path, is_prepared, read_prepared
from ..models.publishing import publish_folder
from ..models.registry import KnownModel, find_checkpoint, find_known, find_local_folder
from ..models.shipping import is_local, ship_model
from ..udf import check_worker_python
from .base import Stage
from .params import AtLeast, OneOf, Self, StageParams
from .persistence import StageContent

SelfModelStage = TypeVar("SelfModelStage", bound="ModelStage")


class ModelStage(Stage, StageParams):
    """A stage that uses a model: the driver prepares it, the executors receive it, and a saved stage contains it."""

    model: Param[str] = Param(
        Params._dummy(), "model", "known name, hub id or folder of the checkpoint", TypeConverters.toString
    )
    revision: Param[str] = Param(
        Params._dummy(), "revision", "branch, tag or commit of a checkpoint on the hub", TypeConverters.toString
    )
    instruction: Param[str] = Param(
        Params._dummy(), "instruction", "instruction that precedes every text", TypeConverters.toString
    )
    maxSentenceLength: Param[int] = Param(
        Params._dummy(),
        "maxSentenceLength",
        "maximum number of tokens per text, including the instruction and </s>",
        AtLeast("maxSentenceLength", 2),
    )
    precision: Param[str] = Param(
        Params._dummy(), "precision", f"one of {', '.join(PRECISIONS)}", OneOf("precision", PRECISIONS)
    )
    sharedFolder: Param[str] = Param(
        Params._dummy(),
        "sharedFolder",
        "folder that the driver and all executors can read under this path; it holds the prepared model",
        TypeConverters.toString,
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(model="instructor_base", instruction="")

    def setModel(self: Self, value: str) -> Self:
        """Set the checkpoint: a known name (`known_models`), a hub id ("owner/name") or a folder."""
        return self._set(model=value)

    def getModel(self) -> str:
        """Return the known name, hub id or folder of the checkpoint."""
        return self.getOrDefault(self.model)

    def setRevision(self: Self, value: str) -> Self:
        """Pin a checkpoint of the hub to a branch, a tag or (best) a commit."""
        return self._set(revision=value)

    def getRevision(self) -> str | None:
        """Return the revision, or None for the default branch of the hub."""
        return self._get(self.revision)

    def setInstruction(self: Self, value: str) -> Self:
        """Set the instruction. It is joined to the text without a separator, so end it with a colon and a space.

        If it is not set, the default prompt of the checkpoint is used; most have none.
        """
        return self._set(instruction=value)

    def getInstruction(self) -> str:
        """Return the instruction."""
        return self.getOrDefault(self.instruction)

    def getMaxSentenceLength(self) -> int:
        """Return the maximum number of tokens per text: what was set, or else the limit of the checkpoint."""
        return self._get(self.maxSentenceLength) or self.prepare_model().max_length

    def getPrecision(self) -> str:
        """Return the precision: what was set, or else that of a prepared or installed model, or else "float32"."""
        if self.isSet(self.precision):
            return self.getOrDefault(self.precision)
        folder = find_local_folder(self.getModel(), self.getRevision())
        return read_prepared(folder).precision if folder is not None and is_prepared(folder) else "float32"

    def setMaxSentenceLength(self: SelfModelStage, value: int) -> SelfModelStage:
        """Set the maximum number of tokens per text, including the instruction and ``</s>``.

        Raises ValueError if the value is less than 2 or greater than the limit of the checkpoint. If the checkpoint has
        not been downloaded and prepared yet, its limit is not known, and `transform` raises the error.
        """
        return self._set_checked(maxSentenceLength=value)

    def setPrecision(self: Self, value: str) -> Self:
        """Set the precision of the weights: "float32", "bfloat16" or "int8".

        Use the same precision for all vectors of an index. Raises ValueError for another precision.
        """
        return self._set(precision=value)

    def setSharedFolder(self: Self, value: str) -> Self:
        """Set a folder for the prepared model that all machines can read (NFS, a Volume), so Spark need not send it.

        `transform` raises ValueError if it is the URI of a file system that is not mounted, such as ``s3://``.
        """
        return self._set(sharedFolder=value)

    def getSharedFolder(self) -> str | None:
        """Return the folder that all machines can read, or None if Spark sends the model."""
        return self._get(self.sharedFolder)

    def prepare_model(self) -> PreparedModel:
        """Return the prepared model of this stage; download and prepare it first if it is not in the cache.

        Raises what `InstructorModel.from_pretrained` raises.
        """
        from ..encoder import prepare_model

        folder = self.getSharedFolder()
        shared = None if folder is None else local_path(folder)  # refused here, before anything is downloaded
        model = prepare_model(find_checkpoint(self.getModel(), self.getRevision()), self._get(self.precision))
        if shared is not None:
            model = prepare_model(model.path, into=shared / model.folder_name)
        return model

    def _set_checked(self: SelfModelStage, **values: int | None) -> SelfModelStage:
        """Set Params that the checkpoint limits. If a model is set and its limits are known, compare them first."""
        known = find_known(self.getModel(), self.getRevision()) if self.isSet(self.model) else None
        if known is not None:
            self.copy()._set(**values)._check_checkpoint(known)
        return self._set(**values)

    def _check_checkpoint(self, model: PreparedModel | KnownModel) -> None:
        """Raise ValueError if the checkpoint has a lower limit of tokens than what was set."""
        max_length = self._get(self.maxSentenceLength) or model.max_length
        if max_length > model.max_length:
            raise ValueError(
                f"maxSentenceLength is {max_length}, but '{model.name}' reads at most {model.max_length} tokens"
            )

    def choose_instruction(self, model: PreparedModel) -> str | None:
        """Return the instruction for all rows: this stage's, or the default prompt of the checkpoint if none is set.

        It is None if each row has its own.
        """
        return self.getInstruction() if self.isSet(self.instruction) else model.default_prompt

    def count_room(self, model: PreparedModel) -> int | None:
        """Return the number of tokens that the limit leaves for a text beside the instruction and ``</s>``.

        It is None if each row has its own instruction. Raises ValueError for a token limit above the model's, and for
        an instruction that leaves no room for a text.
        """
        self._check_checkpoint(model)
        instruction = self.choose_instruction(model)
        if instruction is None:
            return None
        from ..encoder import warn_if_joined

        warn_if_joined(instruction)
        tokenizer = load_tokenizer(HostModel.on_driver(model))
        instruction_tokens = tokenizer.count_instruction_tokens(instruction)
        max_length = self._get(self.maxSentenceLength) or model.max_length
        room = max_length - 1 - instruction_tokens
        if room <= 0:
            raise ValueError(
                f"the instruction takes {instruction_tokens} tokens of the limit of {max_length}, which leaves no room "
                "for a text. Shorten the instruction or raise maxSentenceLength."
            )
        return room

    def ship_model(self, spark: SparkSession, model: PreparedModel) -> ModelLocation:
        """Send the prepared model to the executors of a session if necessary, and return its location there.

        On a local master, raises ImportError if the workers' Python lacks a package.
        """
        from ..encoder import prepare_model

        if is_local(spark):  # what the tasks would find out is known already
            check_worker_python(spark.sparkContext.pythonExec)
        return ship_model(spark, model, prepare=prepare_model, shared=self.getSharedFolder() is not None)

    def collect_content(self) -> StageContent:
        """Return what a save has to write; the model is verified first."""
        model = self.prepare_model()
        model.verify()
        stage = self.copy().setModel(model.name).setPrecision(model.precision)
        folder = find_local_folder(self.getModel(), self.getRevision())
        sources = [model.path] if folder is None else [model.path, folder]
        return StageContent(stage, model.folder_name, model.paths, sources)

    def restore_files(self, folder_name: str, pieces: Iterator[tuple[str, bytes]]) -> None:
        """Store the saved model in the cache, unless it is there already, and use it.

        Raises ValueError if the files are not the ones that were saved. The folder must have the name of its content:
        otherwise it could replace another model.
        """
        final = cached_path(folder_name)
        if not is_prepared(final):
            with publish_folder(final) as new:
                for name, piece in pieces:
                    with (new / name).open("ab") as file:
                        file.write(piece)
                _check_saved(new, folder_name)
        _check_saved(final, folder_name)
        self.setModel(str(final))


def _check_saved(folder: Path, folder_name: str) -> None:
    """Raise ValueError if a prepared folder does not hold what a stage saved under this name."""
    try:
        model = read_prepared(folder)
        model.verify()
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"the saved model {folder_name} is not what was saved: {error}") from error
    if model.folder_name != folder_name:
        raise ValueError(f"the saved model {folder_name} is not what was saved: {folder} holds {model.folder_name}")
