"""`spark-instructor embed` in a process of its own that is interrupted, terminated, or out of disk space."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.dataset as ds
import pytest
from processes import changed_environment

pytestmark = [pytest.mark.one_kind, pytest.mark.exhaustive]

WORDS = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "on", "by", "an"]


@pytest.fixture
def folder(tmp_path):
    """Return a folder with in.jsonl, whose texts take a while."""
    write_texts(tmp_path, 3000)
    return tmp_path


def write_texts(folder, rows):
    random = np.random.default_rng(0)
    lines = [json.dumps({"id": i, "text": " ".join(random.choice(WORDS, 400))}) for i in range(rows)]
    (folder / "in.jsonl").write_text("\n".join(lines))


def start(folder, tiny, *arguments, wrapper=()):
    """Start the command as a terminal would, in a process group of its own."""
    command = [sys.executable, "-m", "spark_instructor", "embed", "in.jsonl", "--model", tiny, "--output", "out"]
    environment = changed_environment(SPARK_LOCAL_DIRS=folder / "local")
    environment.pop("SPARK_CONF_DIR", None)  # with Spark's own logging
    return subprocess.Popen(
        [*wrapper, *map(str, command), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(find, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not find():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


def end(process, signal_=None):
    """Send a signal, and return the code and the lines on stderr."""
    if signal_ is not None:
        # Ctrl-C in a terminal reaches all processes of the group.
        process.send_signal(signal_)
    _, err = process.communicate(timeout=240)
    return process.returncode, [line for line in err.splitlines() if line and "rows/s" not in line]


def test_interrupted(folder, tiny):
    """Ctrl-C ends the command in one line, and the same command is not refused."""
    process = start(folder, tiny)
    wait_for(lambda: list(folder.glob("out/_temporary/0/_temporary/*")), process)
    before = time.monotonic()
    code, lines = end(process, signal.SIGINT)
    assert time.monotonic() - before < 30
    assert (code, len(lines)) == (130, 1), lines
    assert lines[0].startswith("spark-instructor: interrupted. out was not written. Run the same command again, or add")
    write_texts(folder, 10)
    assert end(start(folder, tiny)) == (0, [])
    assert ds.dataset(folder / "out").count_rows() == 10
    # An output with data is refused before Spark starts.
    before = time.monotonic()
    code, lines = end(start(folder, tiny))
    assert (code, len(lines)) == (1, 1) and "out exists already" in lines[0]
    assert time.monotonic() - before < 15


def test_terminated_and_continued(folder, tiny):
    """With a key, a run that is terminated keeps what is finished, and the same command embeds the rest."""
    write_texts(folder, 800)
    process = start(folder, tiny, "--key", "id")
    wait_for(lambda: len(list(folder.glob("out/part=*/*.parquet"))) >= 3, process)
    code, lines = end(process, signal.SIGTERM)
    assert (code, len(lines)) == (143, 1), lines
    assert lines[0].startswith("spark-instructor: terminated. What is finished is in out. Run the same command again")
    process = start(folder, tiny, "--key", "id")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    counts = dict(line.split() for line in out.splitlines()[1:5])
    assert int(counts["unchanged"].replace(",", "")) > 0, out
    rows = ds.dataset(folder / "out", partitioning="hive").to_table(columns=["id"])
    assert sorted(rows["id"].to_pylist()) == list(range(800))


def test_a_full_disk(folder, tiny):
    """The command runs in a mount namespace in which its output is a file system of 1 MB."""
    unshare = shutil.which("unshare")
    wrapper = [unshare, "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m t disk && "$@"', "sh"]
    if unshare is None or subprocess.run([*wrapper[:3], "true"], capture_output=True).returncode:
        pytest.skip("this system lets no user mount a file system")
    (folder / "disk").mkdir()
    random = np.random.default_rng(0)
    rows = [{"id": i, "text": "a text", "noise": random.bytes(40_000).hex()} for i in range(50)]  # 2 MB as Parquet
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, lines = end(start(folder, tiny, "--output", "disk/out", wrapper=wrapper))
    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith("spark-instructor: a disk is full") and "disk/out was not written. Run the" in lines[0]
