"""The kinds of Spark session that tests/spark can run on; the option `--session` names one."""

import dataclasses
import re

import pyspark
import pytest

HELP = """\
kind of Spark session for tests/spark: local[CORES], local-cluster[WORKERS,CORES,MEGABYTES], or standalone[CORES] for \
a standalone cluster on this host whose executors have this many cores each; the prefix connect: runs one of the first \
two through Spark Connect, as in connect:local[2] (default: %(default)s)"""

needs_connect = pytest.mark.skipif(
    pyspark.__version__.startswith("3."), reason="pyspark from PyPI includes a Spark Connect server only since 4.0"
)

_NAME = re.compile(r"(connect:)?(local\[\d+\]|local-cluster\[\d+,\d+,\d+\])|standalone\[(\d+)\]")


@dataclasses.dataclass(frozen=True)
class SessionKind:
    """A kind of session, parsed from its name."""

    connect: bool
    """Whether the session uses Spark Connect."""
    master: str | None
    """The master for Spark's builder; None for a standalone cluster, whose address is only known once it runs."""
    executor_cores: int | None
    """The cores of each executor of a standalone cluster; None for the other kinds."""

    @classmethod
    def parse(cls, name):
        """Parse the name of a kind."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise pytest.UsageError(f"--session: {name!r} is not a kind of session; pytest --help describes the kinds")
        connect, master, cores = match.groups()
        return cls(connect is not None, master, cores and int(cores))

    @property
    def in_driver(self):
        """Whether the executors run as threads of the driver, so that they see everything that the driver sees."""
        return not self.connect and self.master is not None and self.master.startswith("local[")
