"""floors.txt and floors-milvus.txt pin the oldest versions that pyproject.toml promises, so `make test-floors` tests
what users may have.
"""

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def read_versions(requirements, operator):
    """Return the versions that stand after an operator, by package; packages without one are left out."""
    return {
        canonicalize_name(requirement.name): Version(specifier.version)
        for requirement in map(Requirement, requirements)
        for specifier in requirement.specifier
        if specifier.operator == operator
    }


def read_pins(name):
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
    return read_versions(filter(None, lines), "==")


def test_pins_are_the_floors():
    promised = [*PROJECT["dependencies"], *EXTRAS["spark"], *EXTRAS["hub"]]
    assert read_pins("floors.txt") == read_versions(promised, ">=")


def test_pins_of_milvus_are_its_floors():
    pins, floors = read_pins("floors-milvus.txt"), read_versions(EXTRAS["milvus"], ">=")
    assert floors.items() <= pins.items()


def test_milvus_needs_no_older_version_than_the_rest():
    pins, floors = read_pins("floors-milvus.txt"), read_pins("floors.txt")
    assert all(pins[name] >= floors[name] for name in pins.keys() & floors.keys())


def test_every_dependency_has_a_floor():
    dependencies = PROJECT["dependencies"]
    assert len(read_versions(dependencies, ">=")) == len(dependencies)
