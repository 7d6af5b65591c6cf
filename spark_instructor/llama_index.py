"""INSTRUCTOR as the embedding model of LlamaIndex."""

from __future__ import annotations

from typing import Any

from .encoder import InstructorModel

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.constants import DEFAULT_EMBED_BATCH_SIZE
    from llama_index.core.embeddings import BaseEmbedding
except ImportError as error:
    raise ImportError("llama-index-core is missing: pip install 'spark-instructor-embeddings[llama-index]'") from error


class InstructorEmbedding(BaseEmbedding):
    """INSTRUCTOR for LlamaIndex, with the arguments of ``llama-index-embeddings-instructor``.

    It returns the same vectors, so it can query an index that was built with them. Like the ``InstructorEmbedding``
    package, it removes white space from both ends of each text.

    Args:
        model_name: A known name (`known_models`), a hub id or a folder.
        query_instruction: Instruction for questions.
        text_instruction: Instruction for texts.
        embed_batch_size: The number of texts that LlamaIndex passes at a time.
        cache_folder: The folder for downloads; by default the cache of huggingface_hub.
        device: "cpu", "cuda" or "cuda:N"; by default the GPU if there is one.
        **kwargs: Other fields of ``BaseEmbedding``, such as ``callback_manager``.

    Raises what `InstructorModel.from_pretrained` raises.
    """

    query_instruction: str
    text_instruction: str
    cache_folder: str | None
    device: str | None
    _model: InstructorModel = PrivateAttr()

    def __init__(
        self,
        model_name: str = "hkunlp/instructor-base",
        query_instruction: str = "Represent the question for retrieving supporting documents: ",
        text_instruction: str = "Represent the document for retrieval: ",
        embed_batch_size: int = DEFAULT_EMBED_BATCH_SIZE,
        cache_folder: str | None = None,
        device: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(  # type: ignore[call-arg]  # it takes the fields of this class, too
            model_name=model_name,
            query_instruction=query_instruction,
            text_instruction=text_instruction,
            embed_batch_size=embed_batch_size,
            cache_folder=cache_folder,
            device=device,
            **kwargs,
        )
        self._model = InstructorModel.from_pretrained(model_name, device=device, cache_folder=cache_folder)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows this class."""
        return "InstructorEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed(self.query_instruction, [query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(self.text_instruction, texts)

    def _embed(self, instruction: str, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._model.encode(instruction, [text.strip() for text in texts]).tolist()
        return vectors
