"""A Spark standalone cluster on this host: a master and two workers, set up as if each ran on its own host."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark
from processes import free_port, running

HOST = "127.0.0.1"


@contextmanager
def standalone_cluster(folder):
    """Run a cluster and yield its address; each worker has 2 cores and memory for one executor of the default size.

    The executors of each worker have their own HOME, cache and TMPDIR in the folder.
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
    """Run a master or a worker; `running` waits until it is ready, and stops it afterwards."""
    spark_class = Path(pyspark.__file__).parent / "bin/spark-class"
    command = [spark_class, f"org.apache.spark.deploy.{of_class}", "--host", HOST, "--webui-port", 0, *arguments]
    java_options = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # conf/spark-defaults.conf explains why
    return running(command, SPARK_DAEMON_MEMORY="256m", SPARK_DAEMON_JAVA_OPTS=java_options, **settings)
