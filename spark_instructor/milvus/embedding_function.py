"""INSTRUCTOR as an embedding function of pymilvus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..encoder import InstructorModel

try:
    from pymilvus.model.base import BaseEmbeddingFunction
except ImportError:  # pymilvus.model is an extra of pymilvus
    BaseEmbeddingFunction = object


class InstructorEmbeddingFunction(BaseEmbeddingFunction):  # type: ignore[misc]  # pymilvus has no types
    """INSTRUCTOR for Milvus, with the interface of ``pymilvus.model.dense.InstructorEmbeddingFunction``.

    Documents and queries each have their own instruction, which is joined to the text without a separator. If Spark
    embedded the documents, use the same precision here.

    Args:
        model_name: A known name (`known_models`), a hub id or a folder.
        batch_size: Maximum number of texts per forward pass.
        query_instruction: Instruction for `encode_queries`.
        doc_instruction: Instruction for `encode_documents`.
        device: "cpu", "cuda" or "cuda:N"; None means a GPU if there is one.
        normalize_embeddings: Whether to return unit vectors. Otherwise the vectors have the length that the Dense
            layer gives them.
        precision: "float32", "bfloat16" or "int8".
        revision: Branch, tag or commit of a checkpoint on the hub.
        cache_folder: The folder for downloads; by default the cache of huggingface_hub.
        trust_remote_code: Has no effect: no code of a checkpoint is ever run.

    The loaded `InstructorModel` is the attribute ``model``.

    Raises what `InstructorModel.from_pretrained` raises. Nothing is ever installed.
    """

    def __init__(
        self,
        model_name: str = "hkunlp/instructor-xl",
        batch_size: int = 32,
        query_instruction: str = "Represent the question for retrieval:",
        doc_instruction: str = "Represent the document for retrieval:",
        device: str | None = "cpu",
        normalize_embeddings: bool = True,
        *,
        precision: str = "float32",
        revision: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.model_name = model_name
        self.batch_size = batch_size
        self.query_instruction = query_instruction
        self.doc_instruction = doc_instruction
        self.normalize_embeddings = normalize_embeddings
        self.model = InstructorModel.from_pretrained(model_name, revision, precision, device, cache_folder)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.model.dimension

    def __call__(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """Embed documents, as `encode_documents` does."""
        return self.encode_documents(texts)

    def encode_documents(self, documents: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """Return a float32 vector (dim,) per document; raise TypeError for a str instead of a list."""
        return self._encode(self.doc_instruction, documents)

    def encode_queries(self, queries: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """Return a float32 vector (dim,) per query; raise TypeError for a str instead of a list."""
        return self._encode(self.query_instruction, queries)

    def _encode(self, instruction: str, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        return list(
            self.model.encode(instruction, texts, normalize=self.normalize_embeddings, batch_size=self.batch_size)
        )
