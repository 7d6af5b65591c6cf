"""T5's tokenizer, with the same pipeline whatever the checkpoint's files say."""

from __future__ import annotations

import base64
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from ..files import read_bytes, read_json, short_repr

EOS = "</s>"
UNKNOWN = "<unk>"
_SPECIAL_TOKENS = ("<pad>", EOS, UNKNOWN)
_EXTRA_IDS = 100  # T5's <extra_id_0> to <extra_id_99>
_CHARACTERS_PER_PORTION = 1 << 19  # an Encoding takes about 40 times the memory of its text
_CHARACTERS_PER_TOKEN = 8  # more than in English, so that the first prefix of a long text has enough tokens
_GROWTH = 4
_EXTRA_BLANKS = re.compile(r"[ \t\r\n]+(?=[ \t\r\n])")


class T5Tokenizer:
    """The tokenizer of a prepared folder."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self.unknown_id = self._tokenizer.token_to_id(UNKNOWN)
        self._longest_piece = max(map(len, self._tokenizer.get_vocab()))
        self.count_instruction_tokens = lru_cache(maxsize=4096)(self._count_instruction_tokens)

    def encode(self, texts: Iterable[str], max_tokens: int | None = None) -> Iterator[npt.NDArray[np.int32]]:
        """Yield the token ids of each text, int32 (tokens,), with ``</s>`` at the end and not truncated.

        If a text has more than ``max_tokens`` tokens, only a prefix of it may be tokenized, long enough to give more
        than ``max_tokens`` ids. The first ``max_tokens`` of them are the same as for the full text.
        """
        max_characters = None if max_tokens is None else max_tokens * _CHARACTERS_PER_TOKEN
        for portion in _split_into_portions(map(replace_surrogates, texts), max_characters):
            prefixes = [_take_whole_words(text, max_characters) for text in portion]
            encodings = self._tokenizer.encode_batch_fast(prefixes)
            for text, prefix, encoding in zip(portion, prefixes, encodings, strict=True):
                ids = encoding.ids
                if max_tokens is not None and len(ids) <= max_tokens and len(prefix) < len(text):
                    ids = self._encode_prefix(text, max_tokens)
                yield np.array(ids, np.int32)

    def locate_tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the start and the stop of each token in a text, in characters; the text must be valid for UTF-8.

        ``</s>`` at the end is left out.
        """
        spans: list[tuple[int, int]] = self._tokenizer.encode(text).offsets
        return spans[:-1]

    def _encode_prefix(self, text: str, max_tokens: int) -> list[int]:
        """Do what `encode` does, for a text with few tokens for its length, from a prefix that grows until it suffices.

        Tokens on the two sides of a blank are independent, so a prefix of whole words has the same tokens as the full
        text. Inside a very long word, each further character may change the best way to divide it into pieces. But the
        full text's pieces have a boundary somewhere among the last ``_longest_piece`` characters of the prefix, and up
        to that boundary they are the best pieces of the prefix that ends there. So if all prefixes that end there begin
        with the same ids, the full text does, too.
        """
        text = _EXTRA_BLANKS.sub("", text)
        size = max_tokens * _CHARACTERS_PER_TOKEN
        while size < len(text):
            ids = self._encode_one(_take_whole_words(text, size))
            if len(ids) > max_tokens:
                return ids
            ids = self._encode_one(text[:size])
            shorter = (self._encode_one(text[: size - dropped]) for dropped in range(1, self._longest_piece))
            if len(ids) > max_tokens and all(prefix[:max_tokens] == ids[:max_tokens] for prefix in shorter):
                return ids
            size *= _GROWTH
        return self._encode_one(text)

    def _encode_one(self, text: str) -> list[int]:
        (encoding,) = self._tokenizer.encode_batch_fast([text])
        ids: list[int] = encoding.ids
        return ids

    def _count_instruction_tokens(self, instruction: str) -> int:
        """Count the leading tokens that are left out of the mean: those of the instruction alone, stripped of blanks.

        Like sentence-transformers, this ignores where the instruction ends among the tokens of the joined text.
        """
        stripped = replace_surrogates(instruction).strip()
        return len(self._tokenizer.encode(stripped).ids) - 1 if stripped else 0


@lru_cache  # so that it warns once per instruction
def warn_if_joined(instruction: str) -> None:
    """Warn of an instruction whose last word would be joined to the first word of the text."""
    if instruction and not instruction[-1].isspace() and instruction[-1] not in ":\uff1a":
        warnings.warn(
            f"the instruction {instruction!r} is joined to each text without a space, so its last word changes with "
            f"the text: end it with a colon and a space, {instruction + ': '!r}",
            stacklevel=3,
        )


def replace_surrogates(text: str) -> str:
    """Make ``text`` valid for UTF-8: a pair of surrogates becomes its character, and a lone surrogate U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _take_whole_words(text: str, max_characters: int | None) -> str:
    """Return a prefix of at most ``max_characters`` characters, which ends at a blank if it contains one."""
    if max_characters is None or len(text) <= max_characters:
        return text
    blank = text.rfind(" ", 0, max_characters)
    return text[: max_characters if blank < 0 else blank]


def _split_into_portions(texts: Iterable[str], max_characters: int | None) -> Iterator[list[str]]:
    """Group the texts into lists of about `_CHARACTERS_PER_PORTION` characters, at most ``max_characters`` per text.

    A single text may have more characters than that. It ends its list.
    """
    portion: list[str] = []
    characters = 0
    for text in texts:
        portion.append(text)
        characters += len(text) if max_characters is None else min(len(text), max_characters)
        if characters >= _CHARACTERS_PER_PORTION:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


def build_tokenizer(tokenizer_json: Path | None, spiece_model: Path | None) -> Tokenizer:
    """Build a checkpoint's tokenizer with T5's pipeline: Precompiled, WhitespaceSplit, Metaspace, ``$A </s>``.

    transformers 5 always sets this pipeline, while transformers 4 follows tokenizer.json, which in some checkpoints has
    another one. So neither the stored pipeline nor a stored truncation is kept, except for the character map. Without
    tokenizer.json, everything comes from ``spiece.model``, with the vocabulary in T5's order: the pieces, then
    ``<extra_id_99>`` to ``<extra_id_0>``. transformers does the same, but it also takes damaged files.

    Raises ValueError, naming the file, if the file is not one of a T5 tokenizer.
    """
    if tokenizer_json is not None:
        source = tokenizer_json
        tokenizer, charsmap = _read_tokenizer_json(source)
    elif spiece_model is not None:
        source = spiece_model
        tokenizer, charsmap = _build_from_sentencepiece(source)
    else:
        raise ValueError("a T5 checkpoint needs tokenizer.json or spiece.model")

    eos = tokenizer.token_to_id(EOS)
    if eos is None:
        raise ValueError(f"{source} has no {EOS} token: it is not a T5 tokenizer")
    with _name_file_in_errors(source):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if charsmap:
            tokenizer.normalizer = normalizers.Precompiled(charsmap)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
        )
        tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, eos)])
        # Load it as executors will, and encode every character of the Basic Multilingual Plane. An unknown character
        # fails without an <unk> token, and a damaged character map fails only when it is used.
        Tokenizer.from_str(tokenizer.to_str()).encode(_join_every_character())
    return tokenizer


def _join_every_character() -> str:
    """Join the characters of the Basic Multilingual Plane to words of 64."""
    starts = (start for start in range(0, 1 << 16, 64) if not 0xD800 <= start < 0xE000)
    return " ".join("".join(map(chr, range(start, start + 64))) for start in starts)


@contextmanager
def _name_file_in_errors(path: Path) -> Iterator[None]:
    """Turn every error inside the block into a ValueError that names the file."""
    try:
        yield
    except BaseException as error:  # tokenizers raises a plain Exception for content that it cannot read
        # A panic inside tokenizers raises a BaseException that has no public name.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{path} is not a readable T5 tokenizer: {error}") from error


def _read_tokenizer_json(path: Path) -> tuple[Tokenizer, bytes | None]:
    with _name_file_in_errors(path):
        content = read_json(path)
        model = content.get("model")
        kind = model.get("type", "Unigram") if isinstance(model, dict) else None
        if kind != "Unigram":
            raise ValueError(f"its model is {short_repr(kind)}, not T5's Unigram")
        truncation = content.get("truncation")
        if isinstance(truncation, dict) and truncation.get("direction", "Right") != "Right":
            raise ValueError(
                f"its truncation has the direction {short_repr(truncation['direction'])}, but only the end of a text "
                "can be cut off"
            )
        charsmap = _find_charsmap(content.get("normalizer"))
        # The stored pipeline is replaced, so this version of tokenizers need not be able to read it.
        content.update(normalizer=None, pre_tokenizer=None, post_processor=None, decoder=None)
        tokenizer = Tokenizer.from_str(json.dumps(content))
        for token in content.get("added_tokens") or []:
            # tokenizers ignores the stored id of a token that its vocabulary lacks, and assigns a new one.
            if token["content"] in _SPECIAL_TOKENS and tokenizer.token_to_id(token["content"]) != token["id"]:
                raise ValueError(
                    f"its model does not give the added token {short_repr(token['content'])} the id {token['id']}"
                )
        return tokenizer, charsmap


def _find_charsmap(normalizer: Any) -> bytes | None:
    """Find the Precompiled character map in a normalizer of tokenizer.json, which may be inside a Sequence."""
    if not isinstance(normalizer, dict):
        return None
    if normalizer.get("type") == "Precompiled":
        try:
            charsmap = base64.b64decode(normalizer.get("precompiled_charsmap", ""), validate=True)
        except (ValueError, TypeError) as error:
            raise ValueError(f"its precompiled_charsmap is not base64 ({error})") from error
        if not charsmap:
            raise ValueError("its precompiled_charsmap is empty")
        return charsmap
    parts = normalizer.get("normalizers", [])
    if not isinstance(parts, list):
        raise ValueError(f"its normalizers are {short_repr(parts)}, expected a list")
    return next((charsmap for charsmap in map(_find_charsmap, parts) if charsmap is not None), None)


def _build_from_sentencepiece(path: Path) -> tuple[Tokenizer, bytes | None]:
    model = _read_sentencepiece(path)
    trained = model.trainer_spec
    # A file that was cut off between two pieces can be parsed, too, but lacks the specs that follow the pieces.
    if not model.HasField("normalizer_spec") or trained.model_type != trained.UNIGRAM:
        raise ValueError(
            f"{path} is not a sentencepiece model of type Unigram, or it is incomplete. Download it again."
        )
    pieces = [piece.piece for piece in model.pieces]
    if not {*_SPECIAL_TOKENS} <= {*pieces} or pieces.index(UNKNOWN) != trained.unk_id:
        raise ValueError(f"{path} lacks one of the pieces {', '.join(_SPECIAL_TOKENS)}: it is not a T5 tokenizer")
    for piece in model.pieces:
        if piece.type in (piece.USER_DEFINED, piece.CONTROL) and piece.piece not in _SPECIAL_TOKENS:
            raise ValueError(
                f"{path} has the piece {short_repr(piece.piece)}, which is user-defined or a control piece. Only a "
                "tokenizer.json says how to match it. Write one with transformers: "
                "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )
    extra = [f"<extra_id_{i}>" for i in reversed(range(_EXTRA_IDS))]
    vocabulary = [(piece.piece, piece.score) for piece in model.pieces] + [(token, 0.0) for token in extra]
    with _name_file_in_errors(path):
        tokenizer = Tokenizer(Unigram(vocabulary, unk_id=trained.unk_id, byte_fallback=False))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*_SPECIAL_TOKENS, *extra)])
    return tokenizer, model.normalizer_spec.precompiled_charsmap


def _read_sentencepiece(path: Path) -> Any:
    try:
        from sentencepiece import sentencepiece_model_pb2 as protobuf
    except ImportError as error:
        raise ImportError(
            f"{path.parent} has no complete tokenizer.json, and building one from {path.name} needs the packages "
            "sentencepiece and protobuf: pip install 'spark-instructor-embeddings[hub]'"
        ) from error
    model = protobuf.ModelProto()  # type: ignore[attr-defined]
    content = read_bytes(path)
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError, whose module differs between versions
        raise ValueError(f"{path} is not a sentencepiece model: {error}") from error
    return model
