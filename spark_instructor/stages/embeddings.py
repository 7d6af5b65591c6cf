"""InstructorEmbeddings: the driver's side of embedding a DataFrame's texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from ..files import local_path
from ..models.host_cache import Shipped
from ..models.prepared import TOKENIZER, PreparedModel, cache_dir, is_prepared, publish_folder, read_prepared
from ..models.registry import checkpoint_folder, local_folder
from ..models.shipping import ship
from ..worker import Job, cached_model, embed_frame, embedding_udf, torch_device
from .annotation import (
    ANNOTATIONS,
    DOCUMENT,
    METADATA,
    SENTENCE_EMBEDDINGS,
    VECTOR,
    Annotation,
    check_annotator_type,
    check_new,
    check_type,
    column,
    input_field,
    is_annotations,
    utf16_length,
    with_columns,
)
from .params import (
    HasBatchSize,
    HasCaseSensitive,
    HasDevice,
    HasInputCols,
    HasInstruction,
    HasInstructionCol,
    HasLazyAnnotator,
    HasLongText,
    HasMaxSentenceLength,
    HasModel,
    HasOutputCol,
    HasOutputCols,
    HasPrecision,
    HasRevision,
    HasSharedFolder,
    HasStorageRef,
)
from .persistence import PersistentStage, ToSave


class InstructorEmbeddings(
    Transformer,
    HasInputCols,
    HasOutputCol,
    HasOutputCols,
    HasModel,
    HasRevision,
    HasInstruction,
    HasInstructionCol,
    HasBatchSize,
    HasMaxSentenceLength,
    HasPrecision,
    HasDevice,
    HasLongText,
    HasSharedFolder,
    HasStorageRef,
    HasCaseSensitive,
    HasLazyAnnotator,
    PersistentStage,
):
    """Embeds texts with an INSTRUCTOR model (Su et al. 2023), each with an instruction in front.

    What comes out depends on the input column:

    - annotations of type document give annotations of type sentence_embeddings, as Spark NLP's stage of
      this name does; those with an empty result are left out;
    - a string column gives ``array<float>``, an ``array<string>`` column ``array<array<float>>``; null
      gives null, and "" the vector of the instruction alone.

    Vectors are unit vectors of `getDimension` floats. One column goes from ``inputCols`` to ``outputCol``;
    several go to as many ``outputCols``, computed together. A text over ``maxSentenceLength`` tokens is cut,
    or averaged over windows (``longText``). The metadata of each annotation says how many ``tokens`` were
    read, and ``truncated`` where the end was not.

    The model is prepared on the driver at the first `transform` or save and loaded once in each Python
    worker. No action embeds a row more than once, except a sort, which Spark starts by sampling its input.
    A filter on other columns is applied before the embedding even where it stands after this stage, and an
    action that does not need the output, such as `count`, embeds nothing.

    `transform` raises on the driver: ValueError for a missing column, a column of the wrong type or
    annotatorType, an output column that is there already, numbers of columns that do not match, a token
    limit over the checkpoint's and an instruction that leaves no room for a text; and whatever `prepare`
    and `checkpoint_folder` raise.
    """

    __module__ = "spark_instructor"  # the path that saved pipelines name, whatever file holds the class

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
        sharedFolder: str | None = None,
        storageRef: str | None = None,
        caseSensitive: bool | None = None,
        lazyAnnotator: bool | None = None,
    ) -> None:
        super().__init__()
        self._prepared_folders: dict[tuple[str | None, ...], Path] = {}
        self._set(**self._input_kwargs)

    @classmethod
    def pretrained(
        cls, name: str = "instructor_base", lang: str = "en", remote_loc: str | None = None
    ) -> InstructorEmbeddings:
        """A stage with a known model (`known_models`), a hub id or a folder.

        ``remote_loc`` is a folder that holds the checkpoint under ``name``, in place of the hub. Nothing
        is downloaded or prepared before the first `transform` or save, since setters may follow.

        Raises ValueError for a language other than "en".
        """
        if lang != "en":
            raise ValueError(f"there is no {name!r} for lang {lang!r}: INSTRUCTOR models are English, lang='en'")
        return cls(model=name if remote_loc is None else f"{remote_loc}/{name}")

    @classmethod
    def loadSavedModel(cls, folder: str, spark: SparkSession | None = None) -> InstructorEmbeddings:
        """A stage with the checkpoint in a local folder (``spark`` is for Spark NLP's signature alone)."""
        return cls(model=str(folder))

    def getMaxSentenceLength(self) -> int:
        """Most tokens read of instruction + text: what was set, or the checkpoint's own."""
        return self._get(self.maxSentenceLength) or self._prepared().max_length

    def getPrecision(self) -> str:
        """What was set; else "float32", or a prepared model's own."""
        if self.isSet(self.precision):
            return self.getOrDefault(self.precision)
        folder = local_folder(self.getModel())
        return read_prepared(folder).precision if folder is not None and is_prepared(folder) else "float32"

    def getDimension(self) -> int:
        """Width of the vectors, read from the checkpoint."""
        return self._prepared().dimension

    def _prepared(self) -> PreparedModel:
        """The prepared model, made now where it is not in the cache yet."""
        from ..encoder import prepare

        shared = self.getSharedFolder()
        # Kept by this stage and its copies, as finding it again means hashing the whole checkpoint.
        asked = (self.getModel(), self.getRevision(), self._get(self.precision), shared)
        folder = self._prepared_folders.get(asked)
        if folder is None or not is_prepared(folder):
            folder = prepare(checkpoint_folder(self.getModel(), self.getRevision()), self.getPrecision())
            if shared is not None:
                folder = prepare(folder, self.getPrecision(), into=local_path(shared) / read_prepared(folder).key)
            self._prepared_folders[asked] = folder
        return read_prepared(folder)

    def observe(self, dataset: DataFrame, observation: Observation) -> DataFrame:
        """As `transform`, and tell a pyspark `Observation` what the first action on the result embedded.

        Its ``get`` then has ``rows``; ``texts`` embedded and ``nulls`` among them, over all input columns;
        ``tokens`` read; ``truncated`` texts; ``distinct`` texts that went through the model (what repeats in an
        Arrow batch goes once); and the ``seconds`` that this took, summed over the tasks.

        For this every row is embedded, whatever the action: also those that a later filter drops, and by a
        `count` and a select of other columns. Spark tells nothing, and ``get`` waits, after `toLocalIterator`, by
        which `write_to_milvus` fills a file of milvus-lite (persist and count before it), and where Spark knows
        beforehand that an action has no rows (``limit(0)``).
        """
        return self._embedded(dataset, observation)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return self._embedded(dataset)

    def _embedded(self, dataset: DataFrame, observation: Observation | None = None) -> DataFrame:
        fields, outputs = self._columns(dataset)
        prepared = self._prepared()
        job = self._shipped_job(
            dataset.sparkSession,
            nested=[isinstance(field.dataType, ArrayType) for field in fields],
            counted=observation is not None or any(map(is_annotations, fields)),
            observed=observation is not None,
        )
        texts = [_texts(field).alias(f"c{i}") for i, field in enumerate(fields)]
        if job.instruction is None:
            texts.append(column(str(self.getInstructionCol())).alias("instruction"))
        embedded = embedding_udf(job, _returned(fields, job))(F.struct(*texts))

        # Spark pushes a filter on a projected column below the projection, and so would compute the UDF twice: for
        # the filter and for the output. It cannot push a filter below the explode whose column it needs. So each
        # output needs `once`; a filter on other columns still goes below both, and an unused UDF is still pruned.
        raw, once = f"{self.uid}__raw", f"{self.uid}__once"
        rows = dataset.select("*", embedded.alias(raw)).select("*", F.explode(F.array(F.lit(True))).alias(once))
        if observation is not None:
            rows = rows.observe(observation, *_metrics(fields, column(raw)))
        metadata = {"dimension": prepared.dimension, "ref": self.getStorageRef()}
        added = {
            output: (_result(field, column(raw), column(once), i), {**_annotator_type(field), **metadata})
            for i, (field, output) in enumerate(zip(fields, outputs, strict=True))
        }
        return with_columns(rows, added).drop(raw, once)

    def _output_names(self) -> list[str]:
        names = self.getInputCols()
        outputs = self.getOutputCols() if self.isSet(self.outputCols) else [self.getOutputCol()]
        if len(names) != len(outputs):
            raise ValueError(
                f"InstructorEmbeddings: {len(names)} inputCols {names} but {len(outputs)} output columns {outputs}; "
                "set as many outputCols as inputCols"
            )
        return outputs

    def _columns(self, dataset: DataFrame) -> tuple[list[StructField], list[str]]:
        """The checked input columns, and the names of the outputs."""
        stage = type(self).__name__
        names = self.getInputCols()
        outputs = self._output_names()
        fields = [input_field(dataset, name, stage) for name in names]
        for field in fields:
            check_type(field, [StringType(), ArrayType(StringType()), ANNOTATIONS], stage)
            if is_annotations(field):
                check_annotator_type(field, (DOCUMENT,), stage)
        instruction_col = self.getInstructionCol()
        if instruction_col is not None:
            check_type(input_field(dataset, instruction_col, stage), [StringType()], stage)
        check_new(dataset, outputs, stage)
        return fields, outputs

    def _shipped_job(
        self, spark: SparkSession, nested: Iterable[bool] = (False,), counted: bool = False, observed: bool = False
    ) -> Job:
        """This stage's work, its limits checked and its model within reach of the executors."""
        prepared = self._prepared()
        self._check_limits(prepared)
        return self._job(ship(spark, prepared, shared=self.getSharedFolder() is not None), nested, counted, observed)

    def _job(self, model: Shipped, nested: Iterable[bool], counted: bool, observed: bool = False) -> Job:
        return Job(
            model=model,
            nested=tuple(nested),
            counted=counted,
            observed=observed,
            instruction=None if self.getInstructionCol() is not None else self.getInstruction(),
            device=self.getDevice(),
            max_length=self._get(self.maxSentenceLength),
            max_batch=self.getBatchSize(),
            long_text=self.getLongText(),
        )

    def _check_limits(self, prepared: PreparedModel) -> None:
        """ValueError where the token limit is over the checkpoint's, or the instruction leaves no room."""
        limit = self._get(self.maxSentenceLength) or prepared.max_length
        if limit > prepared.max_length:
            raise ValueError(
                f"maxSentenceLength is {limit}, but '{prepared.name}' reads at most {prepared.max_length} tokens"
            )
        if self.getInstructionCol() is not None:
            return
        taken = _instruction_length(prepared.path / TOKENIZER, self.getInstruction())
        if taken >= limit - 1:
            raise ValueError(
                f"the instruction takes {taken} tokens of the limit of {limit}, which leaves no room for a text. "
                "Shorten the instruction or raise maxSentenceLength."
            )

    def _to_save(self) -> ToSave:
        prepared = self._prepared()
        prepared.verify()
        stage = self.copy().setModel(prepared.name).setPrecision(prepared.precision)
        own = local_folder(self.getModel())
        return ToSave(stage, prepared.key, prepared.paths, [prepared.path, *([] if own is None else [own])])

    def _take_files(self, folder: str, pieces: Iterator[tuple[str, bytes]]) -> None:
        """Put the saved model in the cache, where it is not there already, and point to it.

        It must have the name of its content, or it could take another model's place.
        """
        final = cache_dir() / folder
        if not is_prepared(final):
            with publish_folder(final) as new:
                for name, content in pieces:
                    with (new / name).open("ab") as file:
                        file.write(content)
                _check_saved(new, folder)
        _check_saved(final, folder)
        self.setModel(str(final))

    def _transform_rows(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """`transform` for rows in Python, on the driver."""
        if self.getInstructionCol() is not None:
            raise ValueError(
                "LightPipeline annotates texts alone, so it has no instructionCol; use transform, or setInstruction"
            )
        prepared = self._prepared()
        self._check_limits(prepared)
        cells = [[_with_text(cell) for cell in rows[name]] for name in self.getInputCols()]
        texts = [[_local_texts(cell) for cell in of_column] for of_column in cells]
        job = self._job(
            Shipped(prepared.name, prepared.key, str(prepared.path), None),
            nested=[any(isinstance(cell, list) for cell in of_column) for of_column in texts],
            counted=True,
        )
        frame = pd.DataFrame({i: pd.Series(of_column, dtype=object) for i, of_column in enumerate(texts)})
        embedded = embed_frame(cached_model(str(prepared.path), torch_device(job.device)), job, frame)
        added = {
            output: [
                _local_result(cell, *raw)
                for cell, *raw in zip(cells[i], *(embedded[f"{kind}{i}"] for kind in "vnt"), strict=True)
            ]
            for i, output in enumerate(self._output_names())
        }
        return {**rows, **added}


def _check_saved(folder: Path, key: str) -> None:
    """ValueError where a prepared folder does not hold what a stage saved under this key."""
    try:
        model = read_prepared(folder)
        model.verify()
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"the saved model {key} is not what was saved: {error}") from error
    if model.key != key:
        raise ValueError(f"the saved model {key} is not what was saved: {folder} holds {model.key}")


@lru_cache
def _instruction_length(tokenizer: Path, instruction: str) -> int:
    """Tokens of an instruction; kept, as reading a tokenizer takes longer than LightPipeline should."""
    from ..encoder import T5Tokenizer

    return T5Tokenizer(tokenizer).instruction_length(instruction)


def _texts(field: StructField) -> Column:
    """What a column hands to the UDF: its texts alone."""
    if is_annotations(field):
        return F.transform(_annotations_with_text(field), lambda one: one["result"])
    return column(field.name)


def _annotations_with_text(field: StructField) -> Column:
    return F.filter(column(field.name), lambda one: F.coalesce(F.length(one["result"]) > 0, F.lit(False)))


def _returned(fields: list[StructField], job: Job) -> StructType:
    """The UDF's result, as `embed_frames` describes it."""
    returned = StructType()
    for i, field in enumerate(fields):
        nested = isinstance(field.dataType, ArrayType)
        # An annotation always has a text; an element of array<string> may be null.
        has_nulls = not is_annotations(field)
        kinds: dict[str, DataType] = {"v": VECTOR, "n": IntegerType(), "t": BooleanType()}
        for kind, type_ in kinds.items() if job.counted else [("v", VECTOR)]:
            returned.add(f"{kind}{i}", ArrayType(type_, has_nulls) if nested else type_)
    return returned.add("distinct", IntegerType()).add("seconds", DoubleType()) if job.observed else returned


def _metrics(fields: list[StructField], raw: Column) -> list[Column]:
    """What `observe` counts, from the UDF's struct."""

    def of_row(kind: str) -> Column:
        """The counts of a row's texts in one array; a null text, or array of texts, is a null."""
        nested = [isinstance(field.dataType, ArrayType) for field in fields]
        counts = [raw[f"{kind}{i}"] for i in range(len(fields))]
        return F.concat(
            *(
                F.when(one.isNull(), F.array(F.lit(None))).otherwise(one) if is_nested else F.array(one)
                for one, is_nested in zip(counts, nested, strict=True)
            )
        )

    tokens, truncated = of_row("n"), of_row("t")
    counted = {
        "nulls": F.size(F.filter(tokens, lambda one: one.isNull())),
        "texts": F.size(F.filter(tokens, lambda one: one.isNotNull())),
        "tokens": F.aggregate(tokens, F.lit(0), lambda total, one: total + F.coalesce(one, F.lit(0))),
        "truncated": F.size(F.filter(truncated, lambda one: one)),
        "distinct": raw["distinct"],
    }
    sums = [F.coalesce(F.sum(count), F.lit(0)).alias(name) for name, count in counted.items()]
    return [F.count(F.lit(1)).alias("rows"), *sums, F.coalesce(F.sum(raw["seconds"]), F.lit(0.0)).alias("seconds")]


def _result(field: StructField, raw: Column, once: Column, i: int) -> Column:
    """The output column for input column i, from the UDF's struct and the ever true `once`."""
    vectors = raw[f"v{i}"]
    if not is_annotations(field):
        return F.when(once, vectors)
    counts, truncated = raw[f"n{i}"], raw[f"t{i}"]

    def annotation(one: Column, at: Column) -> Column:
        no_metadata = F.create_map().cast(METADATA)
        kept = F.map_filter(F.coalesce(one["metadata"], no_metadata), lambda key, _: ~key.isin("tokens", "truncated"))
        tokens = F.create_map(F.lit("tokens"), F.get(counts, at).cast("string"))
        cut = F.when(F.get(truncated, at), F.create_map(F.lit("truncated"), F.lit("true"))).otherwise(no_metadata)
        return F.struct(
            F.lit(SENTENCE_EMBEDDINGS).alias("annotatorType"),
            # Not null after Parquet either, which the cast to the full type asks for.
            F.coalesce(one["begin"], F.lit(0)).alias("begin"),
            F.coalesce(one["end"], utf16_length(one["result"]) - 1, F.lit(-1)).alias("end"),
            one["result"].alias("result"),
            F.map_concat(kept, tokens, cut).alias("metadata"),
            F.get(vectors, at).alias("embeddings"),
        )

    annotations = F.transform(_annotations_with_text(field), annotation).cast(ANNOTATIONS)
    return F.when(once, annotations).otherwise(F.array().cast(ANNOTATIONS))  # not null where the input is not


def _annotator_type(field: StructField) -> dict[str, str]:
    return {"annotatorType": SENTENCE_EMBEDDINGS} if is_annotations(field) else {}


def _with_text(cell: str | list[Annotation]) -> str | list[Annotation]:
    """A cell of LightPipeline, without the annotations that have no text."""
    return [one for one in cell if one.result] if isinstance(cell, list) else cell


def _local_texts(cell: str | list[Annotation]) -> str | list[str]:
    return [one.result for one in cell] if isinstance(cell, list) else cell


def _local_result(cell: str | list[Annotation], vectors: Any, tokens: Any, truncated: Any) -> list[Any]:
    """The output for one cell of LightPipeline: a vector as a list of floats, or annotations with theirs."""
    if not isinstance(cell, list):
        return list(vectors.tolist())
    return [
        Annotation(
            SENTENCE_EMBEDDINGS,
            one.begin,
            one.end,
            one.result,
            {**one.metadata, "tokens": str(count), **({"truncated": "true"} if cut else {})},
            vector.tolist(),
        )
        for one, vector, count, cut in zip(cell, vectors, tokens, truncated, strict=True)
    ]
