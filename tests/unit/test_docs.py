"""README.md and docs/: every block can be run, links work, and what the pages say about the code is true."""

import re

from pages import BLOCK, PAGES, ROOT, list_blocks

import spark_instructor
from spark_instructor import (
    DocumentAssembler,
    DocumentTokenSplitter,
    EmbeddingsFinisher,
    InstructorEmbeddings,
    SentenceDetector,
)

STAGES = (InstructorEmbeddings, DocumentAssembler, SentenceDetector, DocumentTokenSplitter, EmbeddingsFinisher)


def test_every_block_is_run_or_says_why_not():
    for page in PAGES.values():
        for _, language, _ in BLOCK.findall(page.read_text("utf-8")):
            # GitHub and Sphinx render mermaid. {directives} belong to Sphinx, which reports unknown ones itself.
            known = language in {"python", "sh", "text", "mermaid", ""} or re.fullmatch(r"\{[\w-]+\}", language)
            assert known, f"{page.name} has a block of {language}, which nothing runs"
    assert sum(len(list_blocks(page, language)) for page in PAGES.values() for language in ("python", "sh")) > 25


def test_links_lead_somewhere():
    for page in PAGES.values():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_public_names_are_in_the_reference():
    text = (ROOT / "docs/api.md").read_text("utf-8")
    tables = re.findall(r":toctree: api/\n\n((?:   \w+\n)+)", text)
    assert sorted("".join(tables).split()) == sorted(spark_instructor.__all__)


def test_both_pictures_are_one():
    pictures = {code for page in PAGES.values() for _, code in list_blocks(page, "mermaid")}
    assert len(pictures) == 1


def test_parameters_are_listed():
    text = (ROOT / "docs/parameters.md").read_text("utf-8")
    for stage in STAGES:
        section = text.split(f"## {stage.__name__}\n")[1].split("\n## ")[0]
        first_column = re.findall(r"^\| (.*?) \|", section.strip().split("\n\n")[0], re.MULTILINE)
        names = set(re.findall(r"`(\w+)`", "\n".join(first_column)))
        assert names == {param.name for param in stage().params}, stage.__name__


def test_messages_are_those_of_the_code():
    """Messages that the docs quote are in the code, unless Spark, Java or the system reports them."""
    sources = " ".join(path.read_text("utf-8") for path in (ROOT / "spark_instructor").rglob("*.py"))
    code = re.sub(r"""["']\s*\n\s*f?["']""", "", sources)
    rows = re.findall(r"^\| (`.+?`.*?) \|", (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    prefixes = ("JAVA_GATEWAY", "java does not run", "CANNOT_INFER", "No module", "UDF_PYSPARK", "Permission denied")
    prefixes += ("Python worker exited", "Python worker process")
    quotations = [quotation for row in rows for quotation in re.findall(r"`(.+?)`", row)]
    faults = (ROOT / "docs/faults.md").read_text("utf-8")
    quotations += re.findall(r"(?:fails with|reports) `(.+?)`", faults)
    parts = [part.strip() for quotation in quotations for part in quotation.split("...")]
    parts = [part for part in parts if part and not part.startswith((*prefixes, "/tmp"))]
    assert len(parts) > 60
    assert [part for part in parts if part not in code] == []


def test_faults_are_tested():
    """Each test that docs/faults.md names exists."""
    tests = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/faults.md").read_text("utf-8"))
    assert len(tests) > 25
    for path, test in tests:
        text = (ROOT / "tests" / path).read_text("utf-8")
        assert re.search(rf"def {test}\b", text), f"{path} has no {test}"
