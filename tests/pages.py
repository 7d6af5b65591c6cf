"""Find the documentation pages and their code blocks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {"README": ROOT / "README.md"} | {f"docs-{page.stem}": page for page in sorted((ROOT / "docs").glob("*.md"))}
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(\S*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def list_blocks(page, language):
    """Return the line and the code of each block in this language, except blocks that are marked as not run."""
    text = page.read_text("utf-8")
    return [
        (text[: match.start()].count("\n") + 1, match[3])
        for match in BLOCK.finditer(text)
        if match[2] == language and not match[1]
    ]
