"""T5's tokenizer: one pipeline whatever the checkpoint's files say, and counting an instruction's tokens."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from ..files import read_bytes, read_json, shown

EOS = "</s>"
_SPECIAL = ("<pad>", EOS, "<unk>")
_CHARACTERS_AT_ONCE = 1 << 19  # an Encoding takes some 40 times the room of its text, so few live at a time
_CHARACTERS_A_TOKEN = 8  # more than English takes, so that a long text's first prefix has tokens enough
_GROWTH = 4
_BLANKS_BUT_THE_LAST = re.compile(r"[ \t\r\n]+(?=[ \t\r\n])")


class T5Tokenizer:
    """The tokenizer of a prepared folder."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._longest_piece = max(map(len, self._tokenizer.get_vocab()))
        self.instruction_length = lru_cache(maxsize=4096)(self._instruction_length)

    def encode(self, texts: Iterable[str], enough: int | None = None) -> Iterator[npt.NDArray[np.int32]]:
        """Token ids of each text, each with its ``</s>``, not truncated.

        Of a text with more than ``enough`` tokens they may be a beginning: more than ``enough`` ids, of which
        the first ``enough`` are the whole text's.
        """
        most = None if enough is None else enough * _CHARACTERS_A_TOKEN
        for some in _portions(map(_well_formed, texts), most):
            heads = [_whole_words(text, most) for text in some]
            for text, head, encoding in zip(some, heads, self._tokenizer.encode_batch_fast(heads), strict=True):
                ids = encoding.ids
                if enough is not None and len(ids) <= enough and len(head) < len(text):
                    ids = self._beginning(text, enough)
                yield np.array(ids, np.int32)

    def _beginning(self, text: str, enough: int) -> list[int]:
        """As `encode` for a text that has few tokens for its length, from a prefix that grows until it has enough.

        Between blanks tokens are independent, so a prefix of whole words has the whole text's. Inside a word of
        no end, the best pieces may change with every character that follows; but the best pieces up to any place
        do not, and there is one between two pieces among the prefix's last ``_longest_piece`` characters.
        """
        text = _BLANKS_BUT_THE_LAST.sub("", text)
        size = enough * _CHARACTERS_A_TOKEN
        while size < len(text):
            ids = self._ids(_whole_words(text, size))
            if len(ids) > enough:
                return ids
            ids = self._ids(text[:size])
            shorter = (self._ids(text[: size - less]) for less in range(1, self._longest_piece))
            if len(ids) > enough and all(one[:enough] == ids[:enough] for one in shorter):
                return ids
            size *= _GROWTH
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        (encoding,) = self._tokenizer.encode_batch_fast([text])
        ids: list[int] = encoding.ids
        return ids

    def _instruction_length(self, instruction: str) -> int:
        """How many leading positions an instruction keeps out of the pool: its tokens, stripped and alone.

        Not aligned to the real boundary in the joined text, as in sentence-transformers.
        """
        stripped = _well_formed(instruction).strip()
        return len(self._tokenizer.encode(stripped).ids) - 1 if stripped else 0


def _well_formed(text: str) -> str:
    """``text`` as UTF-8 can hold it: a pair of surrogates becomes its character, a lone one U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _whole_words(text: str, most: int | None) -> str:
    """A text of at most ``most`` characters: its beginning, up to a blank where it has one."""
    if most is None or len(text) <= most:
        return text
    blank = text.rfind(" ", 0, most)
    return text[: most if blank < 0 else blank]


def _portions(texts: Iterable[str], most: int | None) -> Iterator[list[str]]:
    """The texts in lists of about `_CHARACTERS_AT_ONCE` characters, at most ``most`` a text, or of one longer text."""
    portion: list[str] = []
    characters = 0
    for text in texts:
        portion.append(text)
        characters += len(text) if most is None else min(len(text), most)
        if characters >= _CHARACTERS_AT_ONCE:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


def build_tokenizer(tokenizer_json: Path | None, spiece_model: Path | None) -> Tokenizer:
    """A checkpoint's tokenizer with T5's pipeline: Precompiled, WhitespaceSplit, Metaspace, ``$A </s>``.

    transformers 5 sets that pipeline by itself and transformers 4 follows tokenizer.json, which in some
    checkpoints says otherwise; so neither the stored pipeline nor a stored truncation is kept. Without
    tokenizer.json the vocabulary comes from ``spiece.model``, as T5 lays it out: the pieces, then
    ``<extra_id_99>`` to ``<extra_id_0>``.

    Raises ValueError, naming the file, where it is not what a T5 tokenizer needs.
    """
    if tokenizer_json is not None:
        tokenizer, charsmap = _from_json(tokenizer_json)
        if charsmap is None and spiece_model is not None:
            charsmap = _sentencepiece_model(spiece_model).normalizer_spec.precompiled_charsmap
        source = tokenizer_json
    elif spiece_model is not None:
        tokenizer, charsmap = _from_sentencepiece(spiece_model)
        source = spiece_model
    else:
        raise ValueError("a T5 checkpoint needs tokenizer.json or spiece.model")

    eos = tokenizer.token_to_id(EOS)
    if eos is None:
        raise ValueError(f"{source} has no {EOS} token: it is not a T5 tokenizer")
    with _naming(source):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if charsmap:
            tokenizer.normalizer = normalizers.Precompiled(charsmap)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
        )
        tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, eos)])
        # As executors will read it, over every character of the basic plane: an unknown one needs an <unk>, and a
        # damaged character map shows only where it is used.
        Tokenizer.from_str(tokenizer.to_str()).encode(_every_character())
    return tokenizer


def _every_character() -> str:
    """The characters of the basic plane, in words of 64."""
    starts = (start for start in range(0, 1 << 16, 64) if not 0xD800 <= start < 0xE000)
    return " ".join("".join(map(chr, range(start, start + 64))) for start in starts)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is a ValueError that names the file."""
    try:
        yield
    except BaseException as error:  # tokenizers raises plain Exception for what it cannot read
        # A panic in tokenizers comes as a BaseException without a public name.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{path} is not a readable T5 tokenizer: {error}") from error


def _from_json(path: Path) -> tuple[Tokenizer, bytes | None]:
    with _naming(path):
        content = read_json(path)
        model = content.get("model")
        kind = model.get("type", "Unigram") if isinstance(model, dict) else None
        if kind != "Unigram":
            raise ValueError(f"its model is {kind[:30] if isinstance(kind, str) else shown(kind)}, not T5's Unigram")
        charsmap = _find_charsmap(content.get("normalizer"))
        # The stored pipeline is replaced, so it need not even be readable by this tokenizers version.
        content.update(normalizer=None, pre_tokenizer=None, post_processor=None, decoder=None)
        tokenizer = Tokenizer.from_str(json.dumps(content))
        for token in content.get("added_tokens") or []:
            # tokenizers numbers what the vocabulary lacks anew, whatever the file says.
            if token["content"] in _SPECIAL and tokenizer.token_to_id(token["content"]) != token["id"]:
                raise ValueError(f"its added token {shown(token['content'])} has not the id {token['id']} in its model")
        return tokenizer, charsmap


def _find_charsmap(normalizer: Any) -> bytes | None:
    """The Precompiled character map in a normalizer of tokenizer.json, alone or inside a Sequence."""
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
        raise ValueError(f"its normalizers are {shown(parts)}, expected a list")
    return next((charsmap for charsmap in map(_find_charsmap, parts) if charsmap is not None), None)


def _from_sentencepiece(path: Path, extra_ids: int = 100) -> tuple[Tokenizer, bytes | None]:
    model = _sentencepiece_model(path)
    trained = model.trainer_spec
    # A file that was cut between two pieces parses as well, but what follows the pieces is then missing.
    if not model.HasField("normalizer_spec") or trained.model_type != trained.UNIGRAM:
        raise ValueError(f"{path} is not a sentencepiece model of the kind Unigram, or it was cut. Download it again.")
    pieces = [piece.piece for piece in model.pieces]
    if not {*_SPECIAL} <= {*pieces} or pieces.index("<unk>") != trained.unk_id:
        raise ValueError(f"{path} lacks one of the pieces {', '.join(_SPECIAL)}: it is not a T5 tokenizer")
    for piece in model.pieces:
        if piece.type in (piece.USER_DEFINED, piece.CONTROL) and piece.piece not in _SPECIAL:
            raise ValueError(
                f"{path} has the piece {shown(piece.piece)}, which stands for itself: save the checkpoint with a fast "
                "tokenizer, whose tokenizer.json says how"
            )
    extra = [f"<extra_id_{i}>" for i in range(extra_ids - 1, -1, -1)]
    vocabulary = [(piece.piece, piece.score) for piece in model.pieces] + [(token, 0.0) for token in extra]
    with _naming(path):
        tokenizer = Tokenizer(Unigram(vocabulary, unk_id=trained.unk_id, byte_fallback=False))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*_SPECIAL, *extra)])
    return tokenizer, model.normalizer_spec.precompiled_charsmap


def _sentencepiece_model(path: Path) -> Any:
    try:
        from sentencepiece import sentencepiece_model_pb2 as protobuf
    except ImportError as error:
        raise ImportError(
            f"{path.parent} has no complete tokenizer.json, and making one from {path.name} needs the packages "
            "sentencepiece and protobuf: pip install 'spark-instructor-embeddings[hub]'"
        ) from error
    model = protobuf.ModelProto()  # type: ignore[attr-defined]
    content = read_bytes(path)
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError, whose module differs between its versions
        raise ValueError(f"{path} is not a sentencepiece model: {error}") from error
    return model
