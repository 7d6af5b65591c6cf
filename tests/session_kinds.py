"""The kinds of Spark session that tests/spark runs on, by the names that `--session` takes."""

import dataclasses
import re

import pyspark
import pytest

HELP = """\
kind of Spark session for tests/spark: local[CORES], local-cluster[WORKERS,CORES,MEGABYTES], or standalone[CORES], a \
standalone cluster of processes on this host with executors of so many cores; the first two also through Spark \
Connect, as connect:local[2] (%(default)s)"""

needs_connect = pytest.mark.skipif(
    pyspark.__version__.startswith("3."), reason="pyspark from PyPI has a Spark Connect server from 4.0 on"
)

_NAME = re.compile(r"(connect:)?(local\[\d+\]|local-cluster\[\d+,\d+,\d+\])|standalone\[(\d+)\]")


@dataclasses.dataclass(frozen=True)
class SessionKind:
    """One kind, taken apart."""

    connect: bool
    """Whether the session reaches its master through Spark Connect."""
    master: str | None
    """For Spark's builder; None for a standalone cluster, whose address is known once it runs."""
    executor_cores: int | None
    """Cores of each executor of a standalone cluster; None for all other kinds."""

    @classmethod
    def parse(cls, name):
        """Return the kind of this name."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise pytest.UsageError(f"--session: {name!r} is not a kind of session; pytest --help describes the kinds")
        connect, master, cores = found.groups()
        return cls(connect is not None, master, cores and int(cores))

    @property
    def in_driver(self):
        """Whether the executors are threads of the driver, and see all that it sees."""
        return not self.connect and self.master is not None and self.master.startswith("local[")
