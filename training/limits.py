"""Measure what a model cannot do, for its card.

    python training/limits.py DATA RUN MODEL

MODEL is a folder in the hub's layout. The script prints one table with these figures, times 100:

- negation and order: the mean cosine of a held-out sentence of the corpus and a copy that says something else;
- long documents: hit@1 in NQ-QED if the right passage stands alone, at the beginning or in the middle of a document of
  about 450 tokens, and if such documents are cut into chunks;
- other scripts: how many of the world's territories have a name whose vector no other name has, by language;
- code: hit@1 from the first line of a docstring to its function in Python's standard library, with this model and with
  tf-idf.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from babel import Locale
from corpus import Corpus, read_jsonl
from score import evaluate, score_contrasts, score_retrieval
from sklearn.feature_extraction.text import TfidfVectorizer

from spark_instructor import InstructorModel

QUESTION, DOCUMENT = (
    "Represent the question for retrieving supporting documents: ",
    "Represent the document for retrieval: ",
)
LANGUAGES = ("en", "de", "ru", "el", "ar", "hi", "zh", "ja")
DOCUMENTS = 500
WORDS_OF_DOCUMENT = 330  # about 450 tokens
WORDS_OF_CHUNK = 90
FUNCTIONS = 1000
_SAME = 0.999  # cosine from which two vectors are the same

Vectors = npt.NDArray[np.float32]


def measure_documents(embed: evaluate.Embed, data: Path) -> Iterator[tuple[str, float]]:
    passages = {row["id"]: row["text"].split() for row in read_jsonl(data / "eval" / "ret.nq_qed.corpus.jsonl.gz")}
    asked = {row["pos"][0]: row["text"] for row in read_jsonl(data / "eval" / "ret.nq_qed.queries.jsonl.gz")}
    names = [name for name in asked if 40 <= len(passages[name]) <= WORDS_OF_CHUNK][:DOCUMENTS]
    others = [words for name, words in passages.items() if name not in names]
    random = Random(0)
    around = [
        [word for words in random.sample(others, 12) for word in words][: WORDS_OF_DOCUMENT - len(passages[name])]
        for name in names
    ]
    queries = embed(QUESTION, [asked[name] for name in names])
    middle = [
        words[: len(words) // 2] + passages[name] + words[len(words) // 2 :]
        for name, words in zip(names, around, strict=True)
    ]
    for place, documents in {
        "the right passage alone": [passages[name] for name in names],
        "at the beginning of 450 tokens": [passages[name] + after for name, after in zip(names, around, strict=True)],
        "in the middle of 450 tokens": middle,
    }.items():
        embedded = embed(DOCUMENT, [" ".join(words) for words in documents])
        yield f"long documents: {place}", _compute_hits(queries, embedded)
    chunks = [
        (i, " ".join(words[start : start + WORDS_OF_CHUNK]))
        for i, words in enumerate(middle)
        for start in range(0, len(words), WORDS_OF_CHUNK)
    ]
    owners = np.array([i for i, _ in chunks])
    nearest = owners[(queries @ embed(DOCUMENT, [text for _, text in chunks]).T).argmax(1)]
    yield (
        f"long documents: in the middle, chunks of {WORDS_OF_CHUNK} words",
        float((nearest == range(len(names))).mean()),
    )


def measure_scripts(embed: evaluate.Embed) -> Iterator[tuple[str, float]]:
    for language in LANGUAGES:
        locale = Locale(language)
        names = sorted({name for code, name in locale.territories.items() if len(code) == 2})
        vectors = embed("", names)
        similarities = vectors @ vectors.T
        np.fill_diagonal(similarities, -1)
        yield f"other scripts: {locale.english_name}", float((similarities.max(1) < _SAME).mean())


def measure_code(embed: evaluate.Embed) -> Iterator[tuple[str, float]]:
    pairs = Random(0).sample(sorted(set(find_functions())), FUNCTIONS)
    purposes, functions = ([pair[i] for pair in pairs] for i in (0, 1))

    def embed_by_words(texts: Sequence[str]) -> Vectors:
        return words.transform(texts).toarray().astype(np.float32)

    words = TfidfVectorizer(token_pattern="[A-Za-z]+").fit(functions)
    yield "code: this model", _compute_hits(embed(QUESTION, purposes), embed(DOCUMENT, functions))
    yield "code: tf-idf", _compute_hits(embed_by_words(purposes), embed_by_words(functions))


def find_functions() -> Iterator[tuple[str, str]]:
    """Yield the first line of each docstring in Python's standard library, and its function without the docstring."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and (docstring := ast.get_docstring(node)) and len(node.body) > 1:
                purpose = docstring.split("\n")[0]
                node.body = node.body[1:]
                if len(purpose.split()) >= 4:
                    yield purpose, ast.unparse(node)


def _compute_hits(queries: Vectors, passages: Vectors) -> float:
    """Return hit@1 if passage i is the right one for query i."""
    return float(score_retrieval(queries, passages, [{i} for i in range(len(queries))])["hit@1"].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("model", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    embed = InstructorModel.from_pretrained(arguments.model).encode

    for name, figure in score_contrasts(embed, Corpus(arguments.run)).items():
        if "cosine" in name:
            print(f"{name:<60}{figure:>6.1f}")
    for measured in (measure_documents(embed, arguments.data), measure_scripts(embed), measure_code(embed)):
        for name, figure in measured:
            print(f"{name:<60}{100 * figure:>6.1f}", flush=True)


if __name__ == "__main__":
    main()
