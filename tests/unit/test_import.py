"""`import spark_instructor` imports nothing heavy and has no side effects, and its public names resolve."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import spark_instructor

HEAVY = {"torch", "pymilvus", "pyspark", "py4j", "numpy", "pandas", "pyarrow", "transformers", "tokenizers"}


def run_bare(code):
    """Run code in an isolated Python process and return the set of words that it prints."""
    process = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}
    )
    return set(process.stdout.split())


def test_import_is_light():
    modules = run_bare("import sys, spark_instructor; print(*{name.partition('.')[0] for name in sys.modules})")
    assert "spark_instructor" in modules
    assert not HEAVY & modules


def test_listing_names_is_light():
    modules = run_bare(
        "import sys, spark_instructor; dir(spark_instructor); spark_instructor.known_models();"
        "spark_instructor.list_prepared('.'); print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert not HEAVY & modules


def test_stages_start_no_jvm_and_load_no_torch():
    """Stages are defined on the driver, which needs pyspark for that, but neither a session nor torch."""
    code = """
import sys
from spark_instructor import DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings, LightPipeline
from pyspark import SparkContext
assert SparkContext._gateway is None and SparkContext._active_spark_context is None
print(*{name.partition('.')[0] for name in sys.modules})
"""
    modules = run_bare(code)
    assert "pyspark" in modules
    assert not {"torch", "pymilvus", "transformers"} & modules


@pytest.mark.parametrize("name", spark_instructor.__all__)
def test_public_names(name):
    value = getattr(spark_instructor, name)
    assert value.__name__ == name
    assert value.__doc__
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
