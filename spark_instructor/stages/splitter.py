"""DocumentTokenSplitter: from long documents to chunks that an embedding stage reads whole."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import DataFrame

from ..chunks import CHUNK, CHUNKS, DOCUMENT, TOKENS, SplitJob, split_texts
from ..encoder.splitting import MIN_TOKENS
from ..models.host_cache import HostModel, ModelLocation
from ..models.prepared import PreparedModel
from ..udf import create_splitter_udf
from .cutting import Cutter, CuttingStage
from .embeddings import InstructorEmbeddings
from .model_stage import ModelStage
from .params import AtLeast, Self


class _DocumentTokenSplitterParams(ModelStage, CuttingStage):
    """Params of `DocumentTokenSplitter`."""

    numTokens: Param[int] = Param(
        Params._dummy(),
        "numTokens",
        "maximum number of tokens per chunk, without the instruction and </s>",
        AtLeast("numTokens", MIN_TOKENS),
    )
    tokenOverlap: Param[int] = Param(
        Params._dummy(),
        "tokenOverlap",
        "maximum number of tokens that a chunk repeats of the one before it",
        AtLeast("tokenOverlap", 0),
    )
    explodeSplits: Param[bool] = Param(
        Params._dummy(), "explodeSplits", "whether each chunk gets a row of its own", TypeConverters.toBoolean
    )
    trimWhitespace: Param[bool] = Param(
        Params._dummy(), "trimWhitespace", "whether to leave out white space around chunks", TypeConverters.toBoolean
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(tokenOverlap=0, explodeSplits=False, trimWhitespace=True)

    def setNumTokens(self: Self, value: int) -> Self:
        """Set the maximum number of tokens per chunk, without the instruction and ``</s>``.

        Raises ValueError if the value is less than 16, so that every character fits into a chunk. `transform` raises
        ValueError if the model cannot read as many tokens after the instruction.
        """
        return self._set(numTokens=value)

    def setTokenOverlap(self: Self, value: int) -> Self:
        """Set the maximum number of tokens that a chunk repeats from the previous chunk; only whole words are repeated.

        Raises ValueError if the value is negative. `transform` does if it is not less than ``numTokens``.
        """
        return self._set(tokenOverlap=value)

    def getTokenOverlap(self) -> int:
        """Return the maximum number of tokens that a chunk repeats."""
        return self.getOrDefault(self.tokenOverlap)

    def setExplodeSplits(self: Self, value: bool) -> Self:
        """Set whether each chunk gets a row of its own; rows without chunks are then left out."""
        return self._set(explodeSplits=value)

    def getExplodeSplits(self) -> bool:
        """Return whether each chunk gets a row of its own."""
        return self.getOrDefault(self.explodeSplits)

    def setTrimWhitespace(self: Self, value: bool) -> Self:
        """Set whether to leave out white space around chunks. Otherwise it belongs to the chunk before it."""
        return self._set(trimWhitespace=value)

    def getTrimWhitespace(self) -> bool:
        """Return whether white space around chunks is left out."""
        return self.getOrDefault(self.trimWhitespace)


class DocumentTokenSplitter(_DocumentTokenSplitterParams):
    """Splits documents into chunks that an `InstructorEmbeddings` stage reads whole, counted in its model's tokens.

    The input is a column of document annotations, of strings or of arrays of strings. The output is a column of
    document annotations, one per chunk. `from_embeddings` takes the model and the instruction from the stage after
    it; otherwise set them to the same values.

    If a paragraph ends in the second half of what fits, the chunk ends with it. Otherwise, the chunk ends with a
    sentence if one ends there, and with a word if none does. A word is cut only if it is longer than a chunk. The
    ``result`` is a piece of the original text, and ``begin`` and ``end`` are its place there, in UTF-16 units, added to
    the ``begin`` of an annotation. The metadata is that of the input annotation with these entries: ``document``, the
    number of the document among those of its row; ``chunk``, the number of the chunk in its document; ``chunks``, how
    many that has; and ``numTokens``, the number of tokens of the chunk. An empty or blank document has no chunks.

    By default, a chunk has as many tokens as the model can read after the instruction. The driver prepares the model
    as `InstructorEmbeddings` does, and the executors load its tokenizer alone.

    `transform` raises ValueError on the driver if the column is missing or has the wrong type or annotatorType, if
    the output column exists already, if ``numTokens`` is more than the model can read after the instruction, and if
    ``tokenOverlap`` is not less than ``numTokens``. It also raises what `InstructorModel.from_pretrained` raises.
    """

    own_metadata: ClassVar = {"document": DOCUMENT, "chunk": CHUNK, "chunks": CHUNKS, "numTokens": TOKENS}

    @keyword_only
    def __init__(
        self,
        *,
        model: str | None = None,
        revision: str | None = None,
        inputCols: str | list[str] | None = None,
        outputCol: str | None = None,
        instruction: str | None = None,
        maxSentenceLength: int | None = None,
        precision: str | None = None,
        sharedFolder: str | None = None,
        numTokens: int | None = None,
        tokenOverlap: int | None = None,
        explodeSplits: bool | None = None,
        trimWhitespace: bool | None = None,
        lazyAnnotator: bool | None = None,
    ) -> None:
        super().__init__()
        self._set(**self._input_kwargs)

    @classmethod
    def from_embeddings(cls, embeddings: InstructorEmbeddings) -> DocumentTokenSplitter:
        """Return a splitter whose chunks the given stage reads whole: it has the same model, limit and instruction.

        What is set on ``embeddings`` later does not reach the splitter.

        Raises ValueError if ``embeddings`` has an ``instructionCol``, since then its rows leave different room.
        """
        if embeddings.getInstructionCol() is not None:
            raise ValueError(
                f"the InstructorEmbeddings stage reads its instructions from the column "
                f"{embeddings.getInstructionCol()!r}, so its rows leave different room for chunks. Create "
                "DocumentTokenSplitter(model=..., instruction=...) with the longest of the instructions."
            )
        params = {param.name: value for param, value in embeddings._paramMap.items() if hasattr(ModelStage, param.name)}
        return cls()._set(**params)

    def getNumTokens(self) -> int:
        """Return the maximum number of tokens per chunk: what was set, or else what the model can read.

        Raises ValueError, as `transform` does, if the limits of this stage and of the model contradict each other.
        """
        return self._choose_num_tokens(self.prepare_model())

    def _choose_num_tokens(self, model: PreparedModel) -> int:
        room = self.count_room(model)
        assert room is not None  # a splitter has one instruction
        num_tokens = self._get(self.numTokens) or room
        if num_tokens > room or room < MIN_TOKENS:
            raise ValueError(
                f"DocumentTokenSplitter: numTokens is {max(num_tokens, MIN_TOKENS)}, but after the instruction and "
                f"</s>, '{model.name}' can read only {room} tokens of a chunk. Set a smaller numTokens ({MIN_TOKENS} "
                "or more) or a shorter instruction, or raise maxSentenceLength if it is set."
            )
        if self.getTokenOverlap() >= num_tokens:
            raise ValueError(
                f"DocumentTokenSplitter: tokenOverlap is {self.getTokenOverlap()}, expected less than numTokens, which "
                f"is {num_tokens}"
            )
        return num_tokens

    def _create_job(self, model: PreparedModel, num_tokens: int, location: ModelLocation) -> SplitJob:
        instruction = self.choose_instruction(model) or ""
        return SplitJob(location, instruction, num_tokens, self.getTokenOverlap(), self.getTrimWhitespace())

    def create_udf(self, dataset: DataFrame) -> Any:
        """Return the UDF that splits arrays of texts; the model is prepared and sent first."""
        model = self.prepare_model()
        num_tokens = self._choose_num_tokens(model)
        return create_splitter_udf(self._create_job(model, num_tokens, self.ship_model(dataset.sparkSession, model)))

    def create_cutter(self) -> Cutter:
        """Return the function that splits the texts of a row on the driver."""
        model = self.prepare_model()
        location = ModelLocation(model.name, model.folder_name, str(model.path), archive=None)
        job = self._create_job(model, self._choose_num_tokens(model), location)
        return partial(split_texts, job.create_splitter(HostModel.on_driver(model)))

    def is_exploded(self) -> bool:
        """Return whether each chunk gets a row of its own."""
        return self.getExplodeSplits()
