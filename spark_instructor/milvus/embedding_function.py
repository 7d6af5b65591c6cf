"""INSTRUCTOR as an embedding function of pymilvus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..encoder import InstructorModel
from .provenance import check_collection_model
from .vectors import check_vector_type, convert_vectors

try:
    from pymilvus.model.base import BaseEmbeddingFunction
except ImportError:  # pymilvus.model is an extra of pymilvus
    BaseEmbeddingFunction = object

# Arguments of sentence-transformers that pymilvus.model passes on, with what replaces them here.
_REPLACEMENTS = {
    "backend": "the encoder is the same for every model",
    "default_prompt_name": "use doc_instruction and query_instruction",
    "local_files_only": "set HF_HUB_OFFLINE=1",
    "model_kwargs": "use precision",
    "prompts": "use doc_instruction and query_instruction",
    "token": "set HF_TOKEN",
    "use_auth_token": "set HF_TOKEN",
}


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
        normalize_embeddings: Whether to scale the vectors to length 1. A model with a Normalize module, like all of
            INSTRUCTOR's, always does so.
        precision: "float32", "bfloat16" or "int8".
        revision: Branch, tag or commit of a checkpoint on the hub.
        cache_folder: The folder for downloads; by default the cache of huggingface_hub.
        trust_remote_code: Has no effect: no code of a checkpoint is ever run.
        strip: Whether to remove white space at both ends of instructions and texts, as pymilvus.model does. It changes
            the vectors, so use it to search a collection whose documents pymilvus.model has embedded.
        vector_type: Type of the vector field, as for `write_to_milvus`.
        **kwargs: Other arguments, which pymilvus.model passes on to sentence-transformers, raise a TypeError that says
            what replaces them.

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
        strip: bool = False,
        vector_type: str = "FLOAT_VECTOR",
        **kwargs: Any,
    ) -> None:
        for name in kwargs:
            replacement = f": {_REPLACEMENTS[name]}" if name in _REPLACEMENTS else ""
            raise TypeError(f"InstructorEmbeddingFunction has no argument {name!r}{replacement}")
        check_vector_type(vector_type)
        self.model_name = model_name
        self.batch_size = batch_size
        self.query_instruction = query_instruction
        self.doc_instruction = doc_instruction
        self.normalize_embeddings = normalize_embeddings
        self.strip = strip
        self.vector_type = vector_type
        self.model = InstructorModel.from_pretrained(model_name, revision, precision, device, cache_folder)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.model.dimension

    def __call__(self, texts: Sequence[str]) -> Sequence[Any]:
        """Embed documents, as `encode_documents` does."""
        return self.encode_documents(texts)

    def encode_documents(self, documents: Sequence[str]) -> Sequence[Any]:
        """Return a vector per document: a float32 array (dim,), or another type that the vector field takes.

        Raises TypeError for a str instead of a list.
        """
        return self._encode(self.doc_instruction, documents)

    def encode_queries(self, queries: Sequence[str]) -> Sequence[Any]:
        """Return a vector per query, as `encode_documents` does; raise TypeError for a str instead of a list."""
        return self._encode(self.query_instruction, queries)

    def check_collection(self, client: Any, collection: str) -> None:
        """Raise ValueError if another model embedded a collection: vectors of different models cannot be compared.

        Only collections that `write_to_milvus` created say which model embedded them; others pass.

        Args:
            client: A connected ``MilvusClient``.
            collection: Name of the collection.
        """
        model = self.model.prepared
        provenance = {"model": self.model_name, "precision": model.precision, "hash": model.hash}
        remedy = "Pass the model_name and the precision of the collection"
        check_collection_model(client.describe_collection(collection), provenance, "the questions", remedy)

    def _encode(self, instruction: str, texts: Sequence[str]) -> Sequence[Any]:
        if self.strip and not isinstance(texts, str):
            instruction = instruction.strip()
            texts = [text.strip() if isinstance(text, str) else text for text in texts]
        normalize = self.normalize_embeddings or self.model.prepared.has_normalize
        vectors = self.model.encode(instruction, texts, normalize=normalize, batch_size=self.batch_size)
        return convert_vectors(vectors, self.vector_type)
