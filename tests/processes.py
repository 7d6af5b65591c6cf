"""Processes of their own, for what must not run in this one."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

# What a Spark Connect session leaves behind for the processes it starts.
_OF_CONNECT = ("SPARK_REMOTE", "SPARK_LOCAL_REMOTE", "SPARK_CONNECT_MODE_ENABLED")

# The shell that starts a server ends it once its own input ends. Its input is a pipe from this process, which
# ends with it, however that comes about.
_SERVER = 'exec 3<&0; "$@" & server=$!; { cat <&3; kill $server; } >/dev/null 2>&1 & wait $server'


def changed_environment(**changes):
    """This process's environment for another one, with changes and without what belongs to this one's Spark."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_CONNECT}
    return {**inherited, **{name: str(value) for name, value in changes.items()}}


def run_python(*arguments, cwd, timeout=300, **environment):
    """Run Python with these arguments in a changed environment, and return what it printed.

    What it said of its failure is shown where it fails.
    """
    ran = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=changed_environment(**environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=540,  # less than pytest's own, to show what it printed
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def free_port():
    """A port of this host that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def running(command, *, says, log, **environment):
    """A server, from the moment its log says that it is ready to the end of the block.

    It never outlives this process. The end of its log is shown where it does not start.
    """
    with log.open("w") as output:
        server = subprocess.Popen(
            ["bash", "-c", _SERVER, "server", *map(str, command)],
            env=changed_environment(**environment),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the server
        )
    try:
        deadline = time.monotonic() + 120
        while says not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        yield
    finally:
        server.stdin.close()
        server.wait(timeout=60)
