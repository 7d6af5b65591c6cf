"""Become a Milvus server. The Python that runs this has PyPI's package milvus: the server for Linux, with its own etcd.

`python tests/milvus_server.py FOLDER PORT` listens on PORT of this host, and keeps its data in FOLDER.
"""

import os
import sys

from milvus import MilvusServerConfig, _initialize_data_files

folder, port = sys.argv[1:]
binaries = os.path.join(sys.prefix, "milvus-server")  # unpacking them takes longer than starting the server
_initialize_data_files(binaries)
config = MilvusServerConfig(data_dir=folder)
config.resolve()  # finds free ports
config.set("proxy_port", int(port))  # which may still be closing after another server used it
config.write_config()
metrics_port, probe = config.resolve_port(9091)
probe.close()
os.environ.update(
    DEPLOY_MODE="STANDALONE",
    METRICS_PORT=str(metrics_port),
    MILVUS_RUN_DIR=os.path.join(folder, "run"),
    LD_LIBRARY_PATH=os.path.join(binaries, "bin"),
)
os.chdir(folder)
# The server takes the place of this process, so whoever ends this process ends the server.
server = os.path.join(binaries, "bin", "milvus")
os.execv(server, [server, "run", "standalone"])
