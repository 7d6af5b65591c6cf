"""Sentences are cut from the text and cover it, in linear time; they agree with Spark NLP's except as listed."""

import json
import re
from collections import Counter
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_instructor.chunks import detect_texts
from spark_instructor.sentences import STRATEGIES, SentenceFinder

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests/data/sparknlp/sentence_detector.jsonl"

# Every text of the recording whose sentences differ from Spark NLP's, the kind of the difference, which
# docs/migrating.md lists, and in how many of its 11 settings.
DIFFERENCES = {
    "First line without stop\nSecond": ("a blank line", 9),
    "1. First item. 2. Second item. 3) Third item\n- a bullet": ("items of lists", 9),
    "Wait... what? No!!": ("an ellipsis", 10),
    "...": ("an ellipsis", 9),
    "He said: 'It is done.' Then he left. (She stayed.)": ("closing quotes and brackets", 10),
    "Mixed “quotes.” Then": ("closing quotes and brackets", 10),
    "J. R. R. Tolkien wrote it. J.K. Rowling": ("initials", 10),
    "中文句子。另一句！第三句？ end.": ("Chinese and Japanese", 10),
    "Fig. 3 shows it. No. 7 is missing.": ("abbreviations", 9),
    "Semi; colon: dash": ("a semicolon", 8),
}


def find(text, **params):
    return [sentence.text for sentence in SentenceFinder(**params).find(text)]


def test_agreement_with_spark_nlp():
    """181 of 275 results agree in texts, places and numbers; the others differ for a reason that is listed."""
    lines = [json.loads(line) for line in RECORDED.read_text("utf-8").splitlines()]
    differing, agreeing = Counter(), 0
    for line in lines:
        params = {re.sub("([a-z])([A-Z])", r"\1_\2", name).lower(): value for name, value in line["setters"].items()}
        params.pop("explode_sentences", None)  # the rows are put together below
        row = detect_texts(SentenceFinder(**params), [line["text"]])
        ours = list(zip(row["begin"], row["end"], row["text"], map(str, row["sentence"]), strict=True))
        theirs = [annotation for annotations in line["rows"] for annotation in annotations]
        if ours == [(each["begin"], each["end"], each["result"], each["metadata"]["sentence"]) for each in theirs]:
            agreeing += 1
        else:
            differing[line["text"]] += 1
    assert (agreeing, len(lines)) == (181, 275)
    texts = {beginning: text for beginning in DIFFERENCES for text in differing if text.startswith(beginning)}
    assert {beginning: differing[text] for beginning, text in texts.items()} == {
        beginning: settings for beginning, (_, settings) in DIFFERENCES.items()
    }
    assert len(differing) == len(DIFFERENCES)
    kinds = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/migrating.md").read_text("utf-8"), re.MULTILINE)
    assert {kind for kind, _ in DIFFERENCES.values()} <= set(kinds)


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(
            ["Smith et al. (2009) say so.", "See Fig. 3.", "He loves art.", "A Ph.D. student does."], id="abbreviations"
        ),
        pytest.param(["In Jan. 2020 it froze.", "Dr. No lives on Main St.", "The end."], id="titles and streets"),
        pytest.param(["J. R. R. Tolkien met A. Smith in the U.S.", "He left."], id="initials"),
        pytest.param(["Is it No. 7?", "No.", "We know.", "At 5 p.m. we left."], id="numbers"),
        pytest.param(["It costs 3.14.", "See https://a.org/b.c?d=e.", "Mail a.b@c.org!"], id="points inside of words"),
        pytest.param(
            ["“Why?!” he asked.", "(No.)", "'Yes.'", "Well... maybe.", "So . . . what?", "Fine…", ".NET"],
            id="quotations",
        ),
        pytest.param(["你好！！", "真的吗？！", "「はい。」", "終わり"], id="Chinese and Japanese"),
        pytest.param(["مرحبا.", "كيف حالك؟", "नमस्ते।", "بخير۔", "Fin."], id="Arabic, Hindi, Urdu"),
        pytest.param(["Done.\u200bNext.", "One\u00a0thing.", "สวัสดีครับ ผมชื่อ"], id="other white space"),
    ],
)
def test_where_sentences_end(expected):
    separator = "" if expected[0].startswith("你") else " "
    assert find(separator.join(expected)) == expected


def test_lines_and_lists():
    text = "A title\r\n\r\nBy\nJ. Smith. One\tline:\r\n- an item. More\r\n  2) two\n\ta. three.\n \n4. four. Five"
    sentences = [
        "A title",
        "By\nJ. Smith.",
        "One\tline:",
        "- an item.",
        "More",
        "2) two",
        "a. three.",
        "4. four.",
        "Five",
    ]
    assert find(text) == sentences
    assert find("1.) One. (2) Two? 3. Three") == ["1.) One.", "(2) Two?", "3. Three"]
    assert find("1. One\n- two", detect_lists=False) == ["1.", "One\n- two"]


def test_custom_bounds():
    text = "one;two; Three. Four"
    assert find(text, custom_bounds=(";",)) == ["one", "two", "Three.", "Four"]
    assert find(text, custom_bounds=(";",), custom_bounds_strategy="append") == ["one;", "two;", "Three.", "Four"]
    assert find(text, custom_bounds=(";",), custom_bounds_strategy="prepend") == ["one", ";two", "; Three.", "Four"]
    only = {"use_custom_bounds_only": True}
    assert find(text, custom_bounds=("(?i)t(?=h)", "w"), **only) == ["one;t", "o;", "hree. Four"]
    assert find(text, custom_bounds=("(e);", "(t)w", "wo;"), **only) == ["on", "o; Three. Four"]
    assert find(text, custom_bounds=("(?=Three)",), **only) == ["one;two;", "Three. Four"]


def test_lengths_are_in_utf16_units():
    text = "The cat 😀😀😀. Yes."
    assert find(text, max_length=15) == find(text) == ["The cat 😀😀😀.", "Yes."]
    assert find(text, max_length=14) == ["Yes."] and find(text, min_length=15) == ["The cat 😀😀😀."]
    assert find(text, split_length=8) == ["The cat", "😀😀😀.", "Yes."]
    assert find("x👍🏽👍🏽", split_length=6) == ["x👍🏽", "👍🏽"] and find("😀😀", split_length=1) == ["😀", "😀"]
    assert find("e\u0301" * 4, split_length=5) == ["e\u0301" * 2] * 2


PIECES = [
    "the cat sat", "Dr", "e.g", "J", "U.S", "no", "No", "3", "1", "a", "x" * 50, "漢字かな", "สวัสดี", "مرحبا", "e\u0301",
    "👩‍👩‍👧‍👦", "👍🏽", "a.b@c.org", "https://a.org/b.c?d=e", "3.14", "10:30", ".", ".", ". ", "? ", "! ", "...", "…",
    "。", "！？", "؟", "।", ";", '"', "“", "”", "'", "(", ")", "]", "」", "- ", "•", ") ", " ", " ", "  \t", "\n",
    "\r\n", "\n\n", "\r\n\r\n", "\n \n", "\u00a0", "\u200b", "\ufeff", "\u3000", "\u2028", "\x1c", "\x85", "\ud800",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(codec=None), max_size=5)), max_size=60)


@settings(max_examples=500)
@given(
    text=texts.map("".join),
    use_abbreviations=st.booleans(),
    detect_lists=st.booleans(),
    bounds=st.sampled_from([(), ("\n",), (";", r"\d"), ("(?i)(t)he", r"(a)\b", "(?=cat)")]),
    strategy=st.sampled_from(STRATEGIES),
    split_length=st.one_of(st.none(), st.integers(1, 60)),
    lengths=st.one_of(st.just((0, None)), st.tuples(st.integers(0, 9), st.integers(10, 60))),
    only=st.booleans(),
)
def test_sentences_of_any_text(text, use_abbreviations, detect_lists, bounds, strategy, split_length, lengths, only):
    """Each is the text between its places, without white space around it; only what was asked for is left out."""
    finder = SentenceFinder(
        bounds, only and bool(bounds), strategy, use_abbreviations, detect_lists, split_length, *lengths
    )
    sentences = list(finder.find(text))
    units = text.encode("utf-16-le", "surrogatepass")
    minimum, maximum = lengths
    previous = 0
    covered = ""
    for sentence in sentences:
        assert previous <= sentence.begin <= sentence.end
        cut = units[2 * sentence.begin : 2 * sentence.end + 2].decode("utf-16-le", "surrogatepass")
        assert cut == sentence.text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        assert sentence.text == sentence.text.strip() != ""
        length = sentence.end - sentence.begin + 1
        assert minimum <= length <= (maximum or length)
        assert split_length is None or length <= split_length or len(sentence.text) == 1
        covered += cut
        previous = sentence.end + 1
    if lengths == (0, None) and (strategy != "none" or not bounds):
        text = units.decode("utf-16-le", "surrogatepass")
        assert "".join(covered.split()) == "".join(text.split())


SHAPES = {
    "prose": "The cat sat. Dr. Smith, e.g., met Mr. Jones at 5 p.m. in St. Louis. ",
    "one word": "abcd",
    "blanks": "the" + " " * 10_000,
    "lines": "a\n",
    "blank lines": "a\n" + " " * 30,
    "full stops": ".",
    "closing brackets": ".)))))",
    "initials behind blanks": " " * 200_000 + "J. " * 30_000,
    "accents": "\u0301",
    "kanji": "漢字",
}  # fmt: skip


@pytest.mark.parametrize("unit", SHAPES.values(), ids=SHAPES)
def test_linear_time(unit):
    """A long text takes a second or a few; in quadratic time it would take minutes or hours."""
    text = unit * (300_000 // len(unit))
    began = perf_counter()
    assert sum(1 for _ in SentenceFinder().find(text)) > 0
    assert sum(1 for _ in SentenceFinder(custom_bounds=(r"x|\n",), split_length=1000).find(text)) > 0
    assert perf_counter() - began < 30


def test_a_megabyte_of_prose():
    text = SHAPES["prose"] * (1_000_000 // len(SHAPES["prose"]))
    assert sum(1 for _ in SentenceFinder().find(text)) == text.count("The cat") + text.count("Dr.")
