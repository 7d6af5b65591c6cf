"""Train the student's vocabulary, a case-folding sentencepiece model, on the training texts.

    python training/vocabulary.py DATA RUN

The script reads ``DATA/train/texts.open.jsonl.gz`` and writes ``RUN/spiece.model``.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import sentencepiece
from corpus import read_jsonl
from model import Shape

EXTRA_IDS = 100  # T5's <extra_id_0> .. <extra_id_99>, which come after the pieces
MAX_TEXTS_PER_SOURCE = 20_000  # otherwise textbooks and abstracts, half of all characters, would dominate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_sample(arguments.data)),
        model_prefix=str(arguments.run / "spiece"),
        model_type="unigram",
        vocab_size=Shape.vocab_size - EXTRA_IDS,
        character_coverage=0.9998,
        normalization_rule_name="nmt_nfkc_cf",  # folds case, as the uncased teacher does
        pad_id=0,  # the special pieces in T5's order
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
    )


def _sample(data: Path) -> list[str]:
    by_source: dict[str, list[str]] = {}
    for row in read_jsonl(data / "train" / "texts.open.jsonl.gz"):
        by_source.setdefault(row["source"], []).append(row["text"])
    shuffle = random.Random(0)
    return [
        text for texts in by_source.values() for text in shuffle.sample(texts, min(len(texts), MAX_TEXTS_PER_SOURCE))
    ]


if __name__ == "__main__":
    main()
