"""UDFs that Spark sends to the executors: the type of their results, and their errors if a worker lacks something."""

import dataclasses
import pickle
import sys
from types import ModuleType

import pytest
from processes import run_python
from pyspark import cloudpickle

from spark_instructor.encoder import prepare
from spark_instructor.models.host_cache import ModelLocation
from spark_instructor.udf import check_worker_python, create_result_type, create_stage_udf
from spark_instructor.worker import Job

JOB = Job(
    model=ModelLocation("tiny", "tiny-float32", "/nowhere", None),
    nested=(False,),
    with_counts=False,
    with_metrics=False,
    instruction="",
    device="cpu",
    max_length=None,
    batch_size=None,
    long_text="truncate",
    output_type="float",
)


def test_result_type():
    assert create_result_type(JOB, [True]).simpleString() == "struct<vectors_0:array<float>>"
    job = dataclasses.replace(JOB, nested=(True, False), with_counts=True, with_metrics=True)
    result = create_result_type(job, has_null_texts=[False, True])
    assert result.simpleString() == (
        "struct<vectors_0:array<array<float>>,tokens_0:array<int>,truncated_0:array<boolean>,"
        "vectors_1:array<float>,tokens_1:int,truncated_1:boolean,distinct:int,unknown:int,seconds:double>"
    )
    assert not result["vectors_0"].dataType.containsNull
    half = create_result_type(dataclasses.replace(JOB, output_type="half"), [True])
    assert half.simpleString() == "struct<vectors_0:binary>"


@pytest.mark.parametrize(
    "module", [None, ModuleType("spark_instructor")], ids=["the package", "but for another of its name"]
)
def test_a_worker_without_the_package(monkeypatch, module):
    """The UDF is pickled by value, so it can run and report that the package is missing."""
    udf = create_stage_udf(JOB, [True])
    pickled = cloudpickle.dumps(udf.func)
    for name in [name for name in sys.modules if name.startswith("spark_instructor.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "spark_instructor", module)
    with pytest.raises(ImportError, match=r"spark_instructor.*%pip install.*venv-pack"):
        next(pickle.loads(pickled)(iter([])))


def test_a_worker_without_torch(monkeypatch):
    udf = create_stage_udf(JOB, [True])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"torch.*%pip install.*venv-pack"):
        next(udf.func(iter([])))


def test_a_worker_of_another_python(monkeypatch):
    udf = create_stage_udf(JOB, [True])
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "executable", "/other/python")
    with pytest.raises(ImportError, match=r"worker runs /other/python, the driver /.*: set PYSPARK_PYTHON"):
        next(udf.func(iter([])))


def test_another_python_on_this_machine(tmp_path):
    check_worker_python(sys.executable)
    check_worker_python("no-such-python")
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
    bare.chmod(0o755)
    with pytest.raises(ImportError, match=rf"run {bare}, which lacks pandas, pyarrow, torch; .*'PYSPARK_PYTHON'"):
        check_worker_python(str(bare))


@pytest.mark.parametrize("megabytes", [100, 300])
def test_a_worker_without_address_space(tiny, tmp_path, megabytes):
    """spark.executor.pyspark.memory limits the address space of a worker; this test sets the same limit."""
    code = """
import dataclasses, resource, sys
from spark_instructor.models.host_cache import ModelLocation
from spark_instructor.udf import create_stage_udf
from spark_instructor.worker import Job

model = ModelLocation("tiny", "tiny", sys.argv[1], None)
job = Job(model, (False,), False, False, "", "cpu", None, None, "truncate", "float")
embed = create_stage_udf(job, [True]).func
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    next(embed(iter([])))
except MemoryError as error:
    print(error)
"""
    output = run_python("-c", code, prepare(tiny), megabytes, cwd=tmp_path)
    assert "This Python worker ran out of memory" in output and "spark.executor.pyspark.memory" in output
