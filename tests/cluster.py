"""A Spark standalone cluster on this host: a master and two workers, processes as on hosts of their own."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark
from processes import free_port, running

HOST = "127.0.0.1"


@contextmanager
def standalone_cluster(folder):
    """The address of a cluster whose workers have 2 cores each, and room for one executor of Spark's default size.

    The executors of a worker have a HOME, a cache and a TMPDIR of their own in the folder.
    """
    port = free_port()
    address = f"spark://{HOST}:{port}"
    with ExitStack() as stack:
        stack.enter_context(
            _daemon("master.Master", "--port", port, log=folder / "master.log", says="I have been elected leader")
        )
        for home in (folder / "worker1", folder / "worker2"):
            tmp = home / "tmp"
            tmp.mkdir(parents=True)
            stack.enter_context(
                _daemon(
                    *("worker.Worker", "--cores", 2, "--memory", "1g", "--work-dir", home / "work", address),
                    log=home / "log",
                    says="Successfully registered with master",
                    HOME=home,
                    HF_HOME=home / "hf",
                    TMPDIR=tmp,
                    SPARK_LOCAL_DIRS=tmp,
                )
            )
        yield address


def _daemon(of_class, *arguments, **settings):
    """A master or a worker, as `running` runs it."""
    spark_class = Path(pyspark.__file__).parent / "bin/spark-class"
    command = [spark_class, f"org.apache.spark.deploy.{of_class}", "--host", HOST, "--webui-port", 0, *arguments]
    java_options = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # why: see conf/spark-defaults.conf
    return running(command, SPARK_DAEMON_MEMORY="256m", SPARK_DAEMON_JAVA_OPTS=java_options, **settings)
