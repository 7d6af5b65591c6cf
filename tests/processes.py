"""Python processes of their own, for what must not run in this one."""

import os
import subprocess
import sys

# What a Spark Connect session leaves behind for the processes it starts.
_OF_CONNECT = ("SPARK_REMOTE", "SPARK_LOCAL_REMOTE", "SPARK_CONNECT_MODE_ENABLED")


def changed_environment(**changes):
    """This process's environment for another one, with changes and without what belongs to this one's Spark."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_CONNECT}
    return {**inherited, **{name: str(value) for name, value in changes.items()}}


def run_python(*arguments, cwd, **environment):
    """Run Python with these arguments in a changed environment, and return what it printed.

    What it said of its failure is shown where it fails.
    """
    ran = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=changed_environment(**environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
