"""Find the documentation pages and their code blocks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {"README": ROOT / "README.md"} | {f"docs-{page.stem}": page for page in sorted((ROOT / "docs").glob("*.md"))}
NEW_PROCESS = "<!-- in a new process -->\n"
BLOCK = re.compile(rf"^(<!-- not run: [^\n]+ -->\n|{NEW_PROCESS})?```(\S*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def list_blocks(page, language):
    """Return the line and the code of each block in this language, except blocks that are marked as not run."""
    return [block for process in list_processes(page, language) for block in process]


def list_processes(page, language):
    """Return the blocks of `list_blocks` in lists: a reader would run the blocks of each list in one process.

    A block that readers would come back to, because it uses what an earlier process wrote, starts a new list.
    """
    text = page.read_text("utf-8")
    processes = [[]]
    for match in BLOCK.finditer(text):
        mark, found, code = match.groups()
        if found != language or mark not in (None, NEW_PROCESS):
            continue
        if mark is not None:
            processes.append([])
        processes[-1].append((text[: match.start()].count("\n") + 1, code))
    return processes
