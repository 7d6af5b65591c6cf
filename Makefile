# make demo and make test install all they need into .venv; what they need of you is Python and Java.

PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENTS := .venv .venv35 .venv40 .venvsparknlp .venvfloors .venvfloors-milvus .venvmilvus

.DEFAULT_GOAL := help
.PHONY: help demo test test-exhaustive test-connect test-clusters test-spark35 test-spark40 test-sparknlp \
	test-tables test-milvus test-wheel newcomer test-floors soak lint docs check format clean python java

help: ## list these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: java .venv/ready ## embed the passages of examples/ and answer questions; ARGS="--model ID" picks a model
	@$(BIN)/python examples/demo.py $(ARGS)

test: java .venv/ready ## run the tests except the exhaustive ones; ARGS="-k name" picks some
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

test-exhaustive: java .venv/ready ## run the exhaustive tests: every notebook, shell block and fault
	$(BIN)/python -m pytest -m exhaustive --exhaustive $(ARGS)

# On the second kind of session, these tests are enough: what differs there is how a model reaches the workers.
OF_TRAVEL := tests/spark/models tests/spark/stages/test_goldens.py

test-connect: java .venv/ready ## run the Spark tests through Spark Connect
	$(BIN)/python -m pytest tests/spark --exhaustive --session 'connect:local-cluster[2,1,1024]' $(ARGS)
	$(BIN)/python -m pytest $(OF_TRAVEL) --exhaustive --session 'connect:local[2]' $(ARGS)

# These tests run expressions of Spark alone, which are the same on every cluster.
NOT_ON_CLUSTERS := spark/stages/test_assembler.py spark/stages/test_finisher.py

test-clusters: java .venv/ready ## run the Spark tests on clusters
	$(BIN)/python -m pytest tests/spark $(addprefix --ignore tests/,$(NOT_ON_CLUSTERS)) --exhaustive \
		--session 'standalone[2]' $(ARGS)
	$(BIN)/python -m pytest $(OF_TRAVEL) --exhaustive --session 'local-cluster[2,1,1024]' $(ARGS)

# Tests without Spark do not change with its version. Of the exhaustive tests, those of processes that are killed and of how
# a model travels depend on it most; the others, which take minutes, are run on the newest.
ON_35 := spark unit/stages $(addprefix unit/test_,chunks.py columns.py udf.py worker.py)
NOT_ON_35 := spark/test_notebooks.py
EXHAUSTIVE_ON_35 := $(addprefix spark/,models test_daemon.py test_faults.py)

test-spark35: java .venv35/ready ## run the tests on Spark 3.5
	.venv35/bin/python -m pytest $(addprefix tests/,$(ON_35)) $(addprefix --ignore tests/,$(NOT_ON_35)) $(ARGS)
	.venv35/bin/python -m pytest -m exhaustive --exhaustive $(addprefix tests/,$(EXHAUSTIVE_ON_35)) $(ARGS)

test-spark40: java .venv40/ready ## run the golden tests on Spark 4.0
	.venv40/bin/python -m pytest tests/spark/stages/test_goldens.py $(ARGS)

test-milvus: java .venv/ready .venvmilvus/ready ## run the Milvus tests with a real server
	$(BIN)/python -m pytest tests/spark/milvus --exhaustive --milvus-python .venvmilvus/bin/python $(ARGS)

test-sparknlp: java .venvsparknlp/ready ## compare with Spark NLP; its jars come from SPARK_NLP_JARS or from Maven
	.venvsparknlp/bin/python -m pytest tests/sparknlp $(ARGS)

test-tables: java .venv35/ready .venv40/ready ## test Delta and Iceberg tables; their jars come from TABLE_JARS or from Maven
	.venv35/bin/python -m pytest tests/tables $(ARGS)
	.venv40/bin/python -m pytest tests/tables $(ARGS)

# The tests of what calls the libraries whose oldest versions pyproject.toml promises. Milvus has its own environment.
AT_FLOORS := unit/cli unit/encoder unit/models unit/stages unit/test_import.py unit/test_udf.py unit/test_worker.py \
	$(addprefix spark/stages/,test_embeddings.py test_goldens.py)
AT_MILVUS_FLOORS := unit/milvus spark/milvus

test-floors: java .venvfloors/ready .venvfloors-milvus/ready ## run the tests on the oldest versions of other libraries
	.venvfloors/bin/python -m pytest $(addprefix tests/,$(AT_FLOORS)) $(ARGS)
	.venvfloors-milvus/bin/python -m pytest $(addprefix tests/,$(AT_MILVUS_FLOORS)) $(ARGS)

soak: java .venv/ready ## run what takes long: a million texts through one worker, and the longest faults
	$(BIN)/python -m pytest tests/spark -m soak --soak $(ARGS)
	$(BIN)/python benchmarks/soak.py

# pip would put the files of an older build into the wheel. Python imports from the script's folder, so the script is not
# in the checkout's root, which holds the package too.
test-wheel: python ## import the package from a wheel without extras
	rm -rf build .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt .
	.venv-wheel/bin/python tests/import_wheel.py

newcomer: java test-wheel ## do what a newcomer does in the first hour, with the package that test-wheel installed
	.venv-wheel/bin/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt \
		'pyspark[connect]==4.3.0' '.[milvus]' ipykernel nbclient
	.venv-wheel/bin/python tests/newcomer.py

# Most of these test runs leave a core idle, so two run at a time, the longest first; two installations at a time would get
# in each other's way.
check: lint test newcomer $(addsuffix /ready,.venv35 .venv40 .venvmilvus .venvsparknlp) ## run everything that a change has to pass
	$(MAKE) --jobs=2 --output-sync=target test-exhaustive test-spark35 test-clusters test-connect test-milvus test-tables \
		test-sparknlp test-spark40
	$(MAKE) docs

lint: .venv/ready ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready ## format the code and sort its imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

# The test of a notebook leaves its executed copy, so `make docs` executes what no test has executed since it changed.
EXECUTED := $(addprefix docs/,$(wildcard notebooks/*.ipynb))

docs/notebooks/%.ipynb: notebooks/%.ipynb | java .venv/ready
	$(BIN)/python -m pytest -q --exhaustive 'tests/spark/test_notebooks.py::test_runs[$*]'

docs: .venv/ready $(EXECUTED) ## build the documentation into docs/_build/html
	rm -rf docs/api $(filter-out $(EXECUTED),$(wildcard docs/notebooks/*))
	$(BIN)/sphinx-build -q -W --keep-going -d docs/_build/doctrees docs docs/_build/html
	@echo "Built docs/_build/html/index.html"

clean: ## remove the environments and whatever tools left behind
	rm -rf $(ENVIRONMENTS) .venv-wheel build dist docs/_build docs/api docs/notebooks *.egg-info .mypy_cache \
		.pytest_cache .ruff_cache .import_linter_cache .hypothesis spark-warehouse metastore_db derby.log artifacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Those of the older Sparks run tests alone. The extra of 3.5 wants numpy 1, for a Connect server that it lacks.
.venv/ready: NEEDS := 'pyspark[connect]==4.3.0' -e '.[hub,milvus,dev]'
.venv35/ready: NEEDS := pyspark==3.5.9 -e '.[hub,milvus,test]'
.venv40/ready: NEEDS := 'pyspark[connect]==4.0.5' -e '.[hub,milvus,test]'
.venvsparknlp/ready: NEEDS := pyspark==3.5.9 spark-nlp==5.5.3 -e '.[hub]' 'pytest>=9' pytest-timeout

# The server of Milvus 2.3 with an etcd of its own, for Linux on x86-64. PyPI has no later version.
.venvmilvus/ready: NEEDS := milvus==2.3.5

# milvus-lite needs a newer numpy and a newer pyarrow than the floors, so Milvus has an environment of its own. The other
# one does without pymilvus.model, which the test extra would bring, and which imports requests without requiring it.
.venvfloors/ready: NEEDS := -e '.[spark,hub]' hypothesis psutil 'pytest>=9' pytest-timeout
.venvfloors-milvus/ready: NEEDS := -e '.[spark,milvus,test]' requests

# Python 3.10 is a floor too, so it is used if PATH or pyenv has it.
VENV_PYTHON = $(PYTHON)
.venvfloors/ready: VENV_PYTHON = $(FLOORS_PYTHON)
FLOORS_PYTHON ?= $(or $(shell python3.10 -c 'import sys; print(sys.executable)' 2>/dev/null), \
	$(lastword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python)),$(PYTHON))

.venv/ready .venv35/ready .venv40/ready .venvmilvus/ready .venvsparknlp/ready: constraints.txt
.venvfloors/ready: floors.txt
.venvfloors-milvus/ready: floors-milvus.txt
$(ENVIRONMENTS:%=%/ready): %/ready: pyproject.toml Makefile | python
	@test -x $*/bin/pip || { echo "Making $* with $(VENV_PYTHON)"; $(VENV_PYTHON) -m venv $*; }
	@echo "Installing the package and its tools into $*; the first time takes minutes"
	$*/bin/python -m pip install -qq --disable-pip-version-check --no-compile -c $(filter %.txt,$^) $(NEEDS)
	@touch $@

# One line instead of a stack trace for what a new machine may lack.
python:
	@say() { echo "$$1" >&2; exit 1; }; \
	test -x $(BIN)/python && python=$(BIN)/python || python="$(PYTHON)"; \
	version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
		|| say "$$python does not run: install Python 3.11 or later, or name one: make PYTHON=/path/to/python3.11"; \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| say "$$python is Python $$version, and Spark 4.3 needs 3.11 or later: make PYTHON=/path/to/python3.11"; \
	$$python -c 'import ensurepip, venv' 2>/dev/null \
		|| say "$$python has no venv module: install it (on Debian and Ubuntu: apt install python$$version-venv)"

# As Spark looks for it: JAVA_HOME where it is set, else PATH.
java:
	@say() { echo "$$1: Spark needs a JDK 17 or later; install one and set JAVA_HOME to its folder" >&2; exit 1; }; \
	java="$${JAVA_HOME:+$$JAVA_HOME/bin/}java"; \
	version=$$("$$java" -version 2>&1) || say "$$java does not run"; \
	version=$$(echo "$$version" | sed -n 's/.* version "\([^"]*\)".*/\1/p'); \
	major=$${version%%[!0-9]*}; \
	test "$${major:-0}" -ge 17 || say "$$java is Java $${version:-of an unknown version}"
