"""`import spark_instructor` is free of heavy imports and side effects, and its public names resolve."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import spark_instructor

HEAVY = {"torch", "pymilvus", "pyspark", "py4j", "numpy", "pandas", "pyarrow", "transformers", "tokenizers"}


def run_bare(code):
    """Run code apart from this process, its variables and its folder, and return the words that it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}
    )
    return set(done.stdout.split())


def test_import_is_light():
    loaded = run_bare("import sys, spark_instructor; print(*{name.partition('.')[0] for name in sys.modules})")
    assert "spark_instructor" in loaded
    assert not HEAVY & loaded


def test_listing_names_is_light():
    loaded = run_bare(
        "import sys, spark_instructor; dir(spark_instructor); spark_instructor.known_models();"
        "spark_instructor.list_prepared('.'); print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert not HEAVY & loaded


def test_stages_start_no_jvm_and_load_no_torch():
    """Defining stages is the driver's work: it needs pyspark, but neither a session nor torch."""
    code = """
import sys
from spark_instructor import DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings, LightPipeline
from pyspark import SparkContext
assert SparkContext._gateway is None and SparkContext._active_spark_context is None
print(*{name.partition('.')[0] for name in sys.modules})
"""
    loaded = run_bare(code)
    assert "pyspark" in loaded
    assert not {"torch", "pymilvus", "transformers"} & loaded


@pytest.mark.parametrize("name", spark_instructor.__all__)
def test_public_names(name):
    found = getattr(spark_instructor, name)
    assert found.__name__ == name
    assert found.__doc__
    assert name in dir(spark_instructor)


def test_issue_names_are_public():
    assert {"InstructorEmbeddings", "DocumentAssembler", "EmbeddingsFinisher", "LightPipeline"} <= set(
        spark_instructor.__all__
    )


def test_unknown_name():
    with pytest.raises(AttributeError, match="'spark_instructor' has no attribute 'Instructor'"):
        spark_instructor.Instructor  # noqa: B018


def test_version():
    assert spark_instructor.__version__ == version("spark-instructor-embeddings")
