"""INSTRUCTOR as the embeddings of LangChain."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from .encoder import InstructorModel
from .encoder.model import check_texts

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise ImportError("langchain-core is missing: pip install 'spark-instructor-embeddings[langchain]'") from error

_TEXTS_PER_STEP = 256
"""The number of texts after which the progress bar moves."""


class InstructorEmbeddings(Embeddings):
    """INSTRUCTOR for LangChain, with the arguments of ``HuggingFaceInstructEmbeddings`` of langchain-community.

    It returns the same vectors, so it can query a store that was filled with them. Like the ``InstructorEmbedding``
    package, it removes white space from both ends of each text.

    Args:
        model_name: A known name (`known_models`), a hub id or a folder.
        cache_folder: The folder for downloads; by default the cache of huggingface_hub.
        model_kwargs: Other arguments of `InstructorModel.from_pretrained`: ``precision``, ``revision``, and ``device``,
            which is by default the GPU if there is one.
        encode_kwargs: Arguments of `InstructorModel.encode`: ``batch_size``, ``max_length``, ``long_text``.
            ``normalize_embeddings`` has no effect, as INSTRUCTOR's vectors have length 1 in any case.
        embed_instruction: Instruction for `embed_documents`.
        query_instruction: Instruction for `embed_query`.
        show_progress: Whether to show a progress bar.

    Raises what `InstructorModel.from_pretrained` raises.
    """

    def __init__(
        self,
        *,
        model_name: str = "hkunlp/instructor-large",
        cache_folder: str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        encode_kwargs: dict[str, Any] | None = None,
        embed_instruction: str = "Represent the document for retrieval: ",
        query_instruction: str = "Represent the question for retrieving supporting documents: ",
        show_progress: bool = False,
    ) -> None:
        self.model_name = model_name
        self.encode_kwargs = dict(encode_kwargs or {})
        self.encode_kwargs.pop("normalize_embeddings", None)
        self.embed_instruction = embed_instruction
        self.query_instruction = query_instruction
        self.show_progress = self.encode_kwargs.pop("show_progress_bar", show_progress)
        model_kwargs = {"device": None, **(model_kwargs or {})}
        self.client = InstructorModel.from_pretrained(model_name, cache_folder=cache_folder, **model_kwargs)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each text."""
        return self._embed(self.embed_instruction, texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        return self._embed(self.query_instruction, [text])[0]

    def _embed(self, instruction: str, texts: list[str]) -> list[list[float]]:
        check_texts(texts)
        stripped = [text.strip() for text in texts]
        vectors: list[list[float]] = []
        for start in tqdm(range(0, len(texts), _TEXTS_PER_STEP), disable=not self.show_progress):
            step = stripped[start : start + _TEXTS_PER_STEP]
            vectors += self.client.encode(instruction, step, **self.encode_kwargs).tolist()
        return vectors
