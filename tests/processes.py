"""Run Python and servers in separate processes."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

# Variables that a Spark Connect session sets in this process.
_OF_CONNECT = ("SPARK_REMOTE", "SPARK_LOCAL_REMOTE", "SPARK_CONNECT_MODE_ENABLED")

# The shell kills the server when its own standard input ends. That input is a pipe from this process, so it ends
# when this process does, even if this process is killed. Some servers do not always end when they are asked to.
_SERVER = """
exec 3<&0; "$@" & server=$!
{ cat <&3; kill $server; sleep 10; kill -KILL $server; } >/dev/null 2>&1 &
wait $server
"""


def changed_environment(**changes):
    """Return this process's environment with changes, and without the variables of its Spark Connect session."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_CONNECT}
    return {**inherited, **{name: str(value) for name, value in changes.items()}}


def run_python(*arguments, cwd, timeout=540, **environment):
    """Run Python with these arguments in a changed environment, and return what it printed.

    If it fails, the assertion shows what it wrote to standard error. The timeout should be shorter than pytest's, so
    that its error is the one reported.
    """
    process = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=changed_environment(**environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def free_port():
    """Return a port of this host that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def running(command, *, says, log, **environment):
    """Run a server until the block ends; the block starts once the server's log contains `says`.

    The block gets the process of the shell whose child the server is.

    The server never outlives this process. If it does not start, the assertion shows the end of its log.
    """
    with log.open("w") as output:
        server = subprocess.Popen(
            ["bash", "-c", _SERVER, "server", *map(str, command)],
            env=changed_environment(**environment),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so Ctrl-C reaches only this process, which then stops the server
        )
    try:
        deadline = time.monotonic() + 120
        while says not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        yield server
    finally:
        server.stdin.close()
        server.wait(timeout=60)
