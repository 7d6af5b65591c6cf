"""Python processes of their own, for what must not run in this one."""

import os
import subprocess
import sys

# What a Spark Connect session leaves behind for the processes it starts.
OF_CONNECT = ("SPARK_REMOTE", "SPARK_LOCAL_REMOTE", "SPARK_CONNECT_MODE_ENABLED")


def run_python(*arguments, cwd, **environment):
    """Run Python with these arguments in a changed environment, and return what it printed.

    What it said of its failure is shown where it fails.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in OF_CONNECT}
    ran = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**inherited, **{name: str(value) for name, value in environment.items()}},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
