"""InstructorEmbeddings: the stage that embeds the texts of a DataFrame, as the driver sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
from pyspark import keyword_only
from pyspark.ml.linalg import Vectors
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType, StructField

from ..columns import add_columns, check_new_columns, check_type, column, find_field, read_column
from ..encoder.windows import LONG_TEXT, MAX_WINDOWS
from ..files import local_path
from ..models.host_cache import HostModel, ModelLocation
from ..models.prepared import PreparedModel
from ..models.registry import KnownModel, name_everywhere
from ..models.shipping import is_local
from ..provenance import PROVENANCE
from ..udf import create_stage_udf
from ..vectors import DIMENSION, OUTPUT_TYPES, describe_type, encode_vectors
from ..worker import TOKENS, TRUNCATED, Job, choose_device, load_cached
from .annotation import ANNOTATIONS, DOCUMENT, SENTENCE_EMBEDDINGS, Annotation, check_annotator_type, is_annotations
from .base import PLAIN_VECTORS, TEXT
from .distinct import check_distinct, embed_distinct
from .estimate import Estimate, estimate_job
from .expressions import build_output, compute_once, find_error, select_texts, sum_metrics
from .model_stage import ModelStage
from .params import AtLeast, HasInputCols, HasLazyAnnotator, HasOutputCol, HasOutputCols, OneOf, Self

SelfEmbeddings = TypeVar("SelfEmbeddings", bound="_InstructorEmbeddingsParams")


class _InstructorEmbeddingsParams(ModelStage, HasInputCols, HasOutputCol, HasOutputCols, HasLazyAnnotator):
    """Params of `InstructorEmbeddings`."""

    instructionCol: Param[str] = Param(
        Params._dummy(),
        "instructionCol",
        "name of a string column with the instruction of each row",
        TypeConverters.toString,
    )
    batchSize: Param[int] = Param(
        Params._dummy(), "batchSize", "maximum number of texts per forward pass", AtLeast("batchSize", 1)
    )
    device: Param[str] = Param(
        Params._dummy(),
        "device",
        "auto, cpu or cuda; the executor resolves auto",
        OneOf("device", ("auto", "cpu", "cuda")),
    )
    longText: Param[str] = Param(
        Params._dummy(),
        "longText",
        "what to do with a text over the token limit: truncate it, or average over windows",
        OneOf("longText", LONG_TEXT),
    )
    outputType: Param[str] = Param(
        Params._dummy(),
        "outputType",
        f"what a vector of a string column contains: {', '.join(OUTPUT_TYPES)}",
        OneOf("outputType", OUTPUT_TYPES),
    )
    errorCol: Param[str] = Param(
        Params._dummy(),
        "errorCol",
        "name of a column to add that says why a row could not be embedded",
        TypeConverters.toString,
    )
    distinct: Param[bool] = Param(
        Params._dummy(), "distinct", "whether to embed each distinct text only once per job", TypeConverters.toBoolean
    )
    dimension: Param[int] = Param(
        Params._dummy(), "dimension", "width of the vectors, which the checkpoint determines", AtLeast("dimension", 1)
    )
    storageRef: Param[str] = Param(
        Params._dummy(), "storageRef", "name of the embeddings, in the column metadata", TypeConverters.toString
    )
    caseSensitive: Param[bool] = Param(
        Params._dummy(), "caseSensitive", "has no effect for this model", TypeConverters.toBoolean
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(
            device="auto",
            longText="truncate",
            outputType="float",
            distinct=False,
            caseSensitive=False,
        )

    def setOutputCol(self: Self, value: str) -> Self:
        """Set the name of the output column, in place of ``outputCols``."""
        return self._set(outputCol=value, outputCols=None)

    def setOutputCols(self: Self, *value: str | list[str] | tuple[str, ...]) -> Self:
        """Set the names of the output columns, in place of ``outputCol``: one string, several strings, or a list."""
        return self._set(outputCols=value[0] if len(value) == 1 else value, outputCol=None)

    def setInstructionCol(self: Self, value: str) -> Self:
        """Set the name of a string column that holds the instruction of each row.

        It takes precedence over ``instruction``. A null is an empty instruction.
        """
        return self._set(instructionCol=value)

    def getInstructionCol(self) -> str | None:
        """Return the name of the column with the instructions, or None."""
        return self._get(self.instructionCol)

    def setBatchSize(self: Self, value: int) -> Self:
        """Set the maximum number of texts per forward pass.

        You seldom need it: by default, the number of tokens determines the passes. Raises ValueError if the value
        is less than 1.
        """
        return self._set(batchSize=value)

    def getBatchSize(self) -> int | None:
        """Return the maximum number of texts per forward pass, or None."""
        return self._get(self.batchSize)

    def setDimension(self: SelfEmbeddings, value: int) -> SelfEmbeddings:
        """Accept the width of the vectors, as a Spark NLP pipeline sets it.

        Raises ValueError if the checkpoint has another width. If the checkpoint has not been downloaded and prepared
        yet, `transform` raises this error.
        """
        return self._set_checked(dimension=value)

    def setDevice(self: Self, value: str) -> Self:
        """Set the device: "cpu", "cuda", or "auto" for the GPU of the task if it has one and else the CPU."""
        return self._set(device=value)

    def getDevice(self) -> str:
        """Return the device as it was set."""
        return self.getOrDefault(self.device)

    def setLongText(self: Self, value: str) -> Self:
        """Set what to do with a text over the token limit.

        "truncate" reads the beginning. "average" reads up to 32 windows and averages their vectors.
        """
        return self._set(longText=value)

    def getLongText(self) -> str:
        """Return what to do with a text over the token limit."""
        return self.getOrDefault(self.longText)

    def setOutputType(self: Self, value: str) -> Self:
        """Set what the vectors of string columns contain.

        "float" gives ``array<float>``, and "vector" the pyspark.ml vectors that the estimators of Spark ML read. The
        others take less space: "half" (float16, ``binary``), "int8" (``array<tinyint>``) and "binary" (one bit per
        float, ``binary``). Raises ValueError for another type.
        """
        return self._set(outputType=value)

    def getOutputType(self) -> str:
        """Return what the vectors of string columns contain."""
        return self.getOrDefault(self.outputType)

    def setErrorCol(self: Self, value: str) -> Self:
        """Set the name of a string column to add, with the reason if a row could not be embedded and null otherwise.

        Such a row has null outputs. Without this column, the job fails at such a row: one with bytes that are not
        UTF-8, or with more texts than fit in a row (their vectors may take 1 GiB).
        """
        return self._set(errorCol=value)

    def getErrorCol(self) -> str | None:
        """Return the name of the column with the reasons, or None if a row that cannot be embedded fails the job."""
        return self._get(self.errorCol)

    def setDistinct(self: Self, value: bool) -> Self:
        """Set whether to embed each distinct text only once in the whole job, which takes a shuffle and a join.

        Otherwise, a text is embedded once per Arrow batch in which it occurs. The rows are read twice and must be the
        same both times; the columns to embed must be strings. Filter before the stage: a filter after it does not reach
        the texts that are embedded. `observe` counts the distinct texts.
        """
        return self._set(distinct=value)

    def getDistinct(self) -> bool:
        """Return whether each distinct text is embedded only once in the whole job."""
        return self.getOrDefault(self.distinct)

    def setStorageRef(self: Self, value: str) -> Self:
        """Set the name of the embeddings, which the metadata of the output column contains as ``ref``."""
        return self._set(storageRef=value)

    def setCaseSensitive(self: Self, value: bool) -> Self:
        """Accept the setting of a Spark NLP pipeline. It has no effect here or there: the tokenizer decides."""
        return self._set(caseSensitive=value)

    def getCaseSensitive(self) -> bool:
        """Return what was set; it has no effect."""
        return self.getOrDefault(self.caseSensitive)

    def _check_checkpoint(self, model: PreparedModel | KnownModel) -> None:
        """Raise ValueError if the checkpoint has another width, or a lower limit of tokens, than what was set."""
        super()._check_checkpoint(model)
        dimension = self._get(self.dimension) or model.dimension
        if dimension != model.dimension:
            raise ValueError(
                f"dimension is {dimension}, but the vectors of '{model.name}' have {model.dimension} floats"
            )


class InstructorEmbeddings(_InstructorEmbeddingsParams):
    """Embeds texts with an INSTRUCTOR model (Su et al. 2023); an instruction precedes each text.

    The output depends on the input column:

    - Annotations of type document give annotations of type sentence_embeddings, as in Spark NLP's stage of this
      name. Annotations with an empty result are omitted.
    - A string column gives ``array<float>``, and an ``array<string>`` column gives ``array<array<float>>``. A null
      gives a null, and "" gives the vector of the instruction alone. ``outputType`` selects another type of vector.

    The vectors are unit vectors of `getDimension` floats. One column goes from ``inputCols`` to ``outputCol``; several
    columns go to as many ``outputCols`` and are computed together. A text over ``maxSentenceLength`` tokens is
    truncated, or averaged over windows (``longText``). The metadata of an annotation contains the number of ``tokens``
    that were read, and ``truncated`` if the end of the text was not read. The metadata of the output column contains
    the ``dimension`` and Spark NLP's ``ref``, and under ``spark_instructor`` the model, its revision, its precision and
    the instruction, so that a search can embed its query in the same way.

    The driver prepares the model at the first `transform` or save, and each Python worker loads it once. An action
    embeds a row once per use of the DataFrame in its plan: twice for a sort, which Spark starts by sampling its input,
    and for a join of the DataFrame with itself. Write or cache the result first if that matters. Spark applies a filter
    on other columns before the embedding even if the filter comes after this stage, and an action that does not need
    the output, such as `count`, embeds nothing.

    `transform` raises ValueError on the driver if a column is missing or has the wrong type or annotatorType, if
    ``outputType`` is set for annotations, if an output column exists already, if the numbers of input and output
    columns differ, if the token limit is greater than that of the checkpoint, and if the instruction leaves no room
    for a text. It also raises what `InstructorModel.from_pretrained` raises.
    """

    output_kinds: ClassVar = {TEXT: PLAIN_VECTORS, DOCUMENT: SENTENCE_EMBEDDINGS}

    @keyword_only
    def __init__(
        self,
        *,
        model: str | None = None,
        revision: str | None = None,
        inputCols: str | list[str] | None = None,
        outputCol: str | None = None,
        outputCols: str | list[str] | None = None,
        instruction: str | None = None,
        instructionCol: str | None = None,
        batchSize: int | None = None,
        maxSentenceLength: int | None = None,
        precision: str | None = None,
        device: str | None = None,
        longText: str | None = None,
        outputType: str | None = None,
        errorCol: str | None = None,
        distinct: bool | None = None,
        sharedFolder: str | None = None,
        dimension: int | None = None,
        storageRef: str | None = None,
        caseSensitive: bool | None = None,
        lazyAnnotator: bool | None = None,
    ) -> None:
        super().__init__()
        self._set(**self._input_kwargs)

    @classmethod
    def pretrained(
        cls,
        name: str = "instructor_base",
        lang: str = "en",
        remote_loc: str | None = None,
        engine: str | None = None,
    ) -> InstructorEmbeddings:
        """Return a stage with a known model (`known_models`), an installed model, a checkpoint of the hub, or a folder.

        ``remote_loc`` is a folder that contains the checkpoint under ``name``; it replaces the hub. Nothing is
        downloaded or prepared before the first `transform` or save, since setters may follow. ``engine`` exists only
        for Spark NLP's signature.

        Raises ValueError for a language other than "en".
        """
        if lang != "en":
            raise ValueError(f"there is no {name!r} for lang {lang!r}: INSTRUCTOR models are English, lang='en'")
        return cls(model=name if remote_loc is None else f"{remote_loc}/{name}")

    @classmethod
    def loadSavedModel(cls, folder: str, spark_session: SparkSession | None = None) -> InstructorEmbeddings:
        """Return a stage with the checkpoint in a local folder.

        ``spark_session`` exists only for Spark NLP's signature.

        Raises FileNotFoundError if there is no such folder, and ValueError for the URI of another file system.
        """
        path = local_path(folder)
        if not path.is_dir():
            raise FileNotFoundError(f"there is no checkpoint folder {path.absolute()}; for a name, use pretrained()")
        return cls(model=str(folder))

    def getDimension(self) -> int:
        """Return the width of the vectors, which the checkpoint determines."""
        return self._get(self.dimension) or self.prepare_model().dimension

    def getStorageRef(self) -> str:
        """Return the name of the embeddings: what was set, or else one made of the model's name and content.

        A stage of Spark NLP that was trained on these embeddings accepts only embeddings with the same ``ref``.
        """
        return self._get(self.storageRef) or _name_embeddings(self.prepare_model())

    def observe(self, dataset: DataFrame, observation: Observation) -> DataFrame:
        """Transform a DataFrame, and let a pyspark `Observation` report what the first action on the result embedded.

        ``observation.get`` then has these keys:

        - ``rows``: number of rows;
        - ``texts`` and ``nulls``: number of texts that were embedded and of null texts, over all input columns;
        - ``tokens``: number of tokens that were read;
        - ``unknown``: number of tokens that stand for characters outside of the model's vocabulary, such as those of
          other scripts. A run of such characters is one token, and the model cannot tell one from another;
        - ``truncated``: number of texts that were truncated;
        - ``distinct``: number of texts that went through the model. A text that repeats within an Arrow batch goes
          through it once;
        - ``seconds``: time that the embedding took, summed over the tasks.

        So that they can be counted, every action embeds every row, even a `count` or a `select` of other columns, and
        even the rows that a later filter drops. Spark reports nothing, and ``get`` waits forever, after
        `toLocalIterator` and if Spark knows beforehand that an action has no rows (``limit(0)``). `write_to_milvus`
        uses `toLocalIterator` to fill a file of milvus-lite, so persist and count the DataFrame first.
        """
        return self._embed(dataset, observation)

    def estimate(self, dataset: DataFrame, sample_rows: int = 1000, rows: int | None = None) -> Estimate:
        """Estimate what it costs to embed a DataFrame, from its number of rows and a random sample of them.

        The sample is embedded in one task, on one core (``spark.task.cpus``), and nothing is written. `Estimate` has
        the tokens, the shares of unknown tokens and of truncated and repeated texts, the core-hours and the size of the
        vectors.

        Args:
            dataset: The rows that you want to embed.
            sample_rows: Approximate number of rows to embed, at least 100.
            rows: Number of rows of the DataFrame, if you know it. By default, Spark counts them.

        Raises ValueError if ``sample_rows`` is too small, if the DataFrame has no rows or is a stream, or if the sample
        has no text; and whatever `transform` raises.
        """
        return estimate_job(dataset, self.copy().setDistinct(False).observe, self.getDimension(), sample_rows, rows)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return self._embed(dataset)

    def _embed(self, dataset: DataFrame, observation: Observation | None = None) -> DataFrame:
        fields, outputs = self.check_columns(dataset)
        instruction_col, error_col = self.getInstructionCol(), self.getErrorCol()
        instruction = None if instruction_col is None else find_field(dataset, instruction_col, type(self).__name__)
        if not self.getDistinct():
            return self._embed_rows(dataset, fields, outputs, instruction, observation)
        check_distinct(dataset, fields, type(self).__name__)
        inputs = {field.name: field for field in (*fields, instruction) if field is not None}
        return embed_distinct(
            dataset,
            list(inputs.values()),
            outputs if error_col is None else [*outputs, error_col],
            lambda rows: self._embed_rows(rows, fields, outputs, instruction, observation),
            self.uid,
        )

    def _embed_rows(
        self,
        dataset: DataFrame,
        fields: list[StructField],
        outputs: list[str],
        instruction: StructField | None,
        observation: Observation | None,
    ) -> DataFrame:
        model = self.prepare_model()
        job = self.ship_job(
            dataset.sparkSession,
            model,
            nested=[isinstance(field.dataType, ArrayType) for field in fields],
            with_counts=observation is not None or any(map(is_annotations, fields)),
            with_metrics=observation is not None,
        )
        error = f"{self.uid}__error"
        error_col = self.getErrorCol()

        def if_valid(value: Column) -> Column:
            return value if error_col is None else F.when(column(error).isNull(), value)

        rows = dataset
        if error_col is not None:
            read = [*fields] if instruction is None else [*fields, instruction]
            rows = rows.select("*", find_error(read, model.dimension).alias(error))
        max_tokens = (job.max_length or model.max_length) * (MAX_WINDOWS if job.long_text == "average" else 1)
        texts = [if_valid(select_texts(field, max_tokens)).alias(f"texts_{i}") for i, field in enumerate(fields)]
        if instruction is not None:
            texts.append(if_valid(read_column(instruction)).alias("instruction"))
        # An annotation always has a text; an element of array<string> may be null.
        embed = create_stage_udf(job, has_null_texts=[not is_annotations(field) for field in fields])

        rows, result, once = compute_once(rows, embed(F.struct(*texts)), self.uid)
        if observation is not None:
            rows = rows.observe(observation, *sum_metrics(fields, column(result)))
        metadata: dict[str, Any] = {
            DIMENSION: model.dimension,
            "ref": self._get(self.storageRef) or _name_embeddings(model),
            **describe_type(self.getOutputType()),
            PROVENANCE: self._describe_provenance(model),
        }
        added: dict[str, tuple[Column, dict[str, Any]]] = {
            output: (
                if_valid(build_output(field, column(result), column(once), i, self.getOutputType())),
                {**({"annotatorType": SENTENCE_EMBEDDINGS} if is_annotations(field) else {}), **metadata},
            )
            for i, (field, output) in enumerate(zip(fields, outputs, strict=True))
        }
        if error_col is not None:
            added[error_col] = column(error), {}
        return add_columns(rows, added).drop(result, once, error)

    def _describe_provenance(self, model: PreparedModel) -> dict[str, str]:
        """Return what a later search needs to embed its query with the same model."""
        provenance = {
            "model": name_everywhere(self.getModel(), self.getRevision()),
            "revision": self.getRevision(),
            "precision": model.precision,
            "instruction": self.choose_instruction(model),
            "hash": model.hash,
        }
        return {key: value for key, value in provenance.items() if value}

    def list_inputs(self) -> list[str]:
        """Return the names of the input columns."""
        return self.getInputCols()

    def list_outputs(self) -> list[str]:
        """Return the names of the output columns.

        Raises ValueError if their number is not that of the input columns, or if both outputCol and outputCols are set.
        """
        if self.isSet(self.outputCol) and self.isSet(self.outputCols):
            raise ValueError(
                f"InstructorEmbeddings: both outputCol {self.getOutputCol()!r} and outputCols {self.getOutputCols()} "
                "are set; clear one of them: stage.clear(stage.outputCols)"
            )
        inputs = self.getInputCols()
        outputs = self.getOutputCols() if self.isSet(self.outputCols) else [self.getOutputCol()]
        if len(inputs) != len(outputs):
            raise ValueError(
                f"InstructorEmbeddings: {len(inputs)} inputCols {inputs} but {len(outputs)} output columns {outputs}; "
                "set as many outputCols as inputCols"
            )
        return outputs

    def check_columns(self, dataset: DataFrame) -> tuple[list[StructField], list[str]]:
        """Check the columns of a DataFrame, and return the fields of the input columns and the output names.

        Raises ValueError as `transform` does.
        """
        stage = type(self).__name__
        outputs = self.list_outputs()
        fields = [find_field(dataset, name, stage) for name in self.list_inputs()]
        for field in fields:
            check_type(field, [StringType(), ArrayType(StringType()), ANNOTATIONS], stage)
            if is_annotations(field):
                check_annotator_type(field, (DOCUMENT,), stage)
                if self.getOutputType() != "float":
                    raise ValueError(
                        f"{stage}: column {field.name!r} holds annotations, whose embeddings are floats in Spark NLP's "
                        f"schema; outputType {self.getOutputType()!r} needs a string column"
                    )
        instruction_col = self.getInstructionCol()
        if instruction_col is not None:
            check_type(find_field(dataset, instruction_col, stage), [StringType()], stage)
        error_col = self.getErrorCol()
        check_new_columns(dataset, outputs if error_col is None else [*outputs, error_col], stage)
        return fields, outputs

    def ship_job(
        self,
        spark: SparkSession,
        model: PreparedModel,
        nested: Iterable[bool] = (False,),
        with_counts: bool = False,
        with_metrics: bool = False,
    ) -> Job:
        """Return the work of this stage for the executors of a session, and send them its prepared model if necessary.

        Args:
            spark: The session.
            model: The model that `prepare_model` returned.
            nested: For each input column, whether a row holds an array of texts.
            with_counts: Whether the executors return the numbers of tokens and what was truncated.
            with_metrics: Whether the executors return what `observe` needs beside the counts.

        Raises ValueError for a token limit above the model's, and for an instruction that leaves no room for a text.
        On a local master, raises ImportError if the workers' Python lacks a package, and RuntimeError if the device is
        "cuda" and there is no GPU.
        """
        self.count_room(model)
        if is_local(spark) and self.getDevice() == "cuda":  # what the tasks would find out is known already
            choose_device("cuda")
        location = self.ship_model(spark, model)
        return self._create_job(model, location, nested, with_counts, with_metrics)

    def _create_job(
        self,
        model: PreparedModel,
        location: ModelLocation,
        nested: Iterable[bool],
        with_counts: bool,
        with_metrics: bool = False,
    ) -> Job:
        return Job(
            model=location,
            nested=tuple(nested),
            with_counts=with_counts,
            with_metrics=with_metrics,
            instruction=self.choose_instruction(model),
            device=self.getDevice(),
            max_length=self._get(self.maxSentenceLength),
            batch_size=self.getBatchSize(),
            long_text=self.getLongText(),
            # Spark makes pyspark.ml vectors from floats.
            output_type="float" if self.getOutputType() == "vector" else self.getOutputType(),
        )

    def choose_instruction(self, model: PreparedModel) -> str | None:
        """Return the instruction for all rows, as other stages do, or None if there is an ``instructionCol``."""
        return None if self.getInstructionCol() is not None else super().choose_instruction(model)

    def transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Do on the driver what `transform` does."""
        if self.getInstructionCol() is not None:
            raise ValueError(
                "LightPipeline has only texts and therefore no instructionCol; use transform, or setInstruction"
            )
        model = self.prepare_model()
        self.count_room(model)
        cells = [[_drop_empty(cell) for cell in rows[name]] for name in self.list_inputs()]
        encoded = load_cached(HostModel.on_driver(model), choose_device(self.getDevice())).encode_counted(
            self.choose_instruction(model),
            [text for column_cells in cells for cell in column_cells for text in _list_results(cell)],
            max_length=self._get(self.maxSentenceLength),
            long_text=self.getLongText(),
            batch_size=self.getBatchSize(),
        )
        vectors = _list_vectors(encoded.vectors, self.getOutputType())
        results = zip(vectors, encoded.tokens.tolist(), encoded.truncated.tolist(), strict=True)
        added = {
            output: [_build_cell(cell, results) for cell in column_cells]
            for output, column_cells in zip(self.list_outputs(), cells, strict=True)
        }
        return {**rows, **added}


def _name_embeddings(model: PreparedModel) -> str:
    return f"{model.name}-{model.hash[:16]}"


def _drop_empty(cell: str | list[Annotation]) -> str | list[Annotation]:
    """Return a cell of LightPipeline without the annotations that have no text."""
    return [annotation for annotation in cell if annotation.result] if isinstance(cell, list) else cell


def _list_results(cell: str | list[Annotation]) -> list[str]:
    return [annotation.result for annotation in cell] if isinstance(cell, list) else [cell]


def _list_vectors(matrix: npt.NDArray[np.float32], output_type: str) -> list[Any]:
    """Return the vectors as Spark returns them to the driver."""
    if output_type == "vector":
        return [Vectors.dense(vector) for vector in matrix]
    encoded = encode_vectors(matrix, output_type)
    return [row.tobytes() for row in encoded] if encoded.dtype == np.uint8 else encoded.tolist()


def _build_cell(cell: str | list[Annotation], results: Iterator[tuple[Any, int, bool]]) -> Any:
    """Return the output for one cell of LightPipeline: a vector, or annotations with vectors.

    ``results`` has the vector, the number of tokens and whether it was truncated of each text, for all cells in order.
    """
    if not isinstance(cell, list):
        return next(results)[0]
    return [
        Annotation(
            SENTENCE_EMBEDDINGS,
            annotation.begin,
            annotation.end,
            annotation.result,
            {**annotation.metadata, TOKENS: str(tokens), **({TRUNCATED: "true"} if is_truncated else {})},
            vector,
        )
        for annotation, (vector, tokens, is_truncated) in zip(cell, results, strict=False)
    ]
