"""DocumentTokenSplitter: from long documents to chunks that an embedding stage reads whole."""

from __future__ import annotations

from typing import Any, ClassVar

from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, StringType, StructField

from .. import chunks
from ..chunks import SplitJob, split_texts
from ..columns import add_columns, check_new_columns, check_type, column, empty_array, find_field, read_column
from ..encoder.splitting import MIN_TOKENS
from ..models.host_cache import HostModel, ModelLocation
from ..models.prepared import PreparedModel
from ..udf import create_splitter_udf
from .annotation import ANNOTATIONS, DOCUMENT, METADATA, Annotation, check_annotator_type, is_annotations
from .base import TEXT
from .embeddings import InstructorEmbeddings
from .expressions import compute_once
from .model_stage import ModelStage
from .params import AtLeast, HasInputCols, HasLazyAnnotator, HasOutputCol, Self

_METADATA = {
    "document": chunks.DOCUMENT,
    "chunk": chunks.CHUNK,
    "chunks": chunks.CHUNKS,
    "numTokens": chunks.TOKENS,
}
"""Entries that the metadata of a chunk gets, each with the name of the result that it comes from."""


class _DocumentTokenSplitterParams(ModelStage, HasInputCols, HasOutputCol, HasLazyAnnotator):
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

        Raises ValueError if the value is less than 16, which is more than any single character has. `transform` does
        if the model cannot read so many behind the instruction.
        """
        return self._set(numTokens=value)

    def setTokenOverlap(self: Self, value: int) -> Self:
        """Set how many tokens a chunk repeats of the one before it: as many whole words as have at most so many.

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
        """Set whether to leave out white space around chunks. Otherwise it belongs to the chunk in front of it."""
        return self._set(trimWhitespace=value)

    def getTrimWhitespace(self) -> bool:
        """Return whether white space around chunks is left out."""
        return self.getOrDefault(self.trimWhitespace)


class DocumentTokenSplitter(_DocumentTokenSplitterParams):
    """Splits documents into chunks that an `InstructorEmbeddings` stage reads whole, counted in its model's tokens.

    The input is a column of document annotations, of strings or of arrays of strings. The output is a column of
    document annotations, one per chunk. `from_embeddings` takes the model and the instruction from the stage behind
    it; otherwise set them to the same values.

    A chunk ends with a paragraph if one ends in the second half of what fits, else with a sentence if one ends there,
    else with a word. A word is cut only if it is longer than a chunk. The ``result`` is a piece of the original text,
    and ``begin`` and ``end`` are its place there, in UTF-16 units, added to the ``begin`` of an annotation. The
    metadata is that of the input annotation with these entries: ``document``, the number of the document among those
    of its row; ``chunk``, the number of the chunk in its document; ``chunks``, how many that has; and ``numTokens``,
    the number of tokens of the chunk. An empty or blank document has no chunks.

    By default, a chunk has as many tokens as the model can read behind the instruction. The driver prepares the model
    as `InstructorEmbeddings` does, and the executors load its tokenizer alone.

    `transform` raises ValueError on the driver if the column is missing or has the wrong type or annotatorType, if
    the output column exists already, if ``numTokens`` is more than the model can read behind the instruction, and if
    ``tokenOverlap`` is not less than ``numTokens``. It also raises what `InstructorModel.from_pretrained` raises.
    """

    output_kinds: ClassVar = {TEXT: DOCUMENT, DOCUMENT: DOCUMENT}

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
                f"DocumentTokenSplitter: numTokens is {max(num_tokens, MIN_TOKENS)}, but of the tokens that "
                f"'{model.name}' reads the instruction and </s> leave {room} for a chunk. Set a smaller numTokens "
                f"({MIN_TOKENS} or more) or a shorter instruction, or raise maxSentenceLength if it is set."
            )
        if self.getTokenOverlap() >= num_tokens:
            raise ValueError(
                f"DocumentTokenSplitter: tokenOverlap is {self.getTokenOverlap()}, expected less than numTokens, which "
                f"is {num_tokens}"
            )
        return num_tokens

    def list_inputs(self) -> list[str]:
        """Return the name of the input column in a list; raise ValueError if there are several."""
        inputs = self.getInputCols()
        if len(inputs) != 1:
            raise ValueError(
                f"DocumentTokenSplitter reads one column, but inputCols is {inputs}: use one stage for each"
            )
        return inputs

    def list_outputs(self) -> list[str]:
        """Return the name of the output column in a list."""
        return [self.getOutputCol()]

    def _transform(self, dataset: DataFrame) -> DataFrame:
        stage = type(self).__name__
        field = find_field(dataset, self.list_inputs()[0], stage)
        check_type(field, [ANNOTATIONS, StringType(), ArrayType(StringType())], stage)
        check_annotator_type(field, (DOCUMENT,), stage)
        check_new_columns(dataset, self.list_outputs(), stage)
        model = self.prepare_model()
        job = self._create_job(model, self._choose_num_tokens(model), self.ship_model(dataset.sparkSession, model))

        rows, result, once = compute_once(dataset, create_splitter_udf(job)(_select_texts(field)), self.uid)
        annotations = _build_annotations(field, column(result))
        if self.getExplodeSplits():
            exploded = f"{self.uid}__exploded"
            rows = rows.select("*", F.explode(annotations).alias(exploded))
            annotations = F.array(column(exploded))
            temporary = [result, once, exploded]
        else:
            temporary = [result, once]
        # The cast to the exact schema of Spark NLP; the guard keeps Spark from computing the UDF twice.
        annotations = F.when(column(once), annotations.cast(ANNOTATIONS))
        return add_columns(rows, {self.getOutputCol(): (annotations, {"annotatorType": DOCUMENT})}).drop(*temporary)

    def _create_job(self, model: PreparedModel, num_tokens: int, location: ModelLocation) -> SplitJob:
        instruction = self.choose_instruction(model) or ""
        return SplitJob(location, instruction, num_tokens, self.getTokenOverlap(), self.getTrimWhitespace())

    def transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Do on the driver what `transform` does; with ``explodeSplits``, too, the chunks of a text stay together."""
        model = self.prepare_model()
        location = ModelLocation(model.name, model.folder_name, str(model.path), archive=None)
        job = self._create_job(model, self._choose_num_tokens(model), location)
        splitter = job.create_splitter(HostModel.on_driver(model))

        def split(cell: str | list[Annotation]) -> list[Annotation]:
            documents = cell if isinstance(cell, list) else [Annotation(DOCUMENT, 0, 0, cell, {"sentence": "0"}, [])]
            found = split_texts(splitter, [document.result for document in documents])
            annotations = []
            for i, text in enumerate(found[chunks.TEXT]):
                document = documents[found[chunks.DOCUMENT][i]]
                begin, end = document.begin + found[chunks.BEGIN][i], document.begin + found[chunks.END][i]
                own = {key: str(found[name][i]) for key, name in _METADATA.items()}
                annotations.append(Annotation(DOCUMENT, begin, end, text, {**document.metadata, **own}, []))
            return annotations

        (name,) = self.list_inputs()
        return {**rows, self.getOutputCol(): [split(cell) for cell in rows[name]]}


def _select_texts(field: StructField) -> Column:
    """Return the texts of a column in an array, as the UDF receives them; a null string is a null in it."""
    if is_annotations(field):
        return F.transform(read_column(field), lambda annotation: annotation["result"])
    return read_column(field) if isinstance(field.dataType, ArrayType) else F.array(read_column(field))


def _build_annotations(field: StructField, result: Column) -> Column:
    """Return the annotations of the chunks that the UDF found."""

    def build(text: Column, i: Column) -> Column:
        document = F.get(result[chunks.DOCUMENT], i)
        first = F.lit(0)
        inherited = F.create_map(F.lit("sentence"), document.cast("string"))
        if is_annotations(field):
            # Only what is needed of the annotation is cast, since this happens once per chunk.
            annotation = F.get(column(field.name), document)
            first = F.coalesce(annotation["begin"], F.lit(0))
            inherited = F.coalesce(annotation["metadata"].cast(METADATA), F.create_map().cast(METADATA))
        inherited = F.map_filter(inherited, lambda key, _: ~key.isin(*_METADATA))
        entries = [F.create_map(F.lit(key), F.get(result[name], i).cast("string")) for key, name in _METADATA.items()]
        return F.struct(
            F.lit(DOCUMENT).alias("annotatorType"),
            # Never null, but Spark cannot know that.
            F.coalesce(first + F.get(result[chunks.BEGIN], i), F.lit(0)).alias("begin"),
            F.coalesce(first + F.get(result[chunks.END], i), F.lit(-1)).alias("end"),
            text.alias("result"),
            F.map_concat(inherited, *entries).alias("metadata"),
            empty_array(F.lit(0.0).cast(FloatType())).alias("embeddings"),
        )

    return F.transform(result[chunks.TEXT], build)
