"""A Spark session with the jars of Spark NLP; `make test-sparknlp` runs the tests in this folder."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"

# Without the package, this folder passes for a namespace package of its name.
collect_ignore_glob = [] if find_spec("sparknlp.annotator") else ["test_*.py"]


@pytest.fixture(scope="session")
def spark(own_spark_settings, own_cache):
    """Start a session with the jars in the folder SPARK_NLP_JARS, or from Maven as Spark NLP's users get them."""
    import sparknlp
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.kryoserializer.buffer.max", "2000M")
    builder = builder.config("spark.serializer", "org.apache.spark.serializer.KryoSerializer")
    folder = os.environ.get("SPARK_NLP_JARS")
    if folder:
        jars = sorted(map(str, Path(folder).glob("*.jar")))
        assert jars, f"SPARK_NLP_JARS names {folder}, which has no jars"
        builder = builder.config("spark.jars", ",".join(jars))
    else:
        builder = builder.config("spark.jars.packages", f"com.johnsnowlabs.nlp:spark-nlp_2.12:{sparknlp.version()}")
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def onnx_folder(tiny, tmp_path_factory):
    """Return the golden checkpoint in the form that Spark NLP's loadSavedModel reads, which has no Dense layer."""
    folder = tmp_path_factory.mktemp("onnx")
    (folder / "assets").mkdir()
    (folder / "model.onnx").symlink_to(DATA / "sparknlp/model.onnx")
    (folder / "assets/spiece.model").symlink_to(tiny / "spiece.model")
    return str(folder)
