"""How spark-instructor-embeddings is built and what it needs; the tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "spark_instructor/__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "([^"]+)"', INIT, re.MULTILINE)[1]

# No pyspark among these: on a cluster it is already there, and the encoder and Milvus do without it.
REQUIRES = [
    "numpy>=1.23",
    "pandas>=1.5",
    "pyarrow>=11",
    "safetensors>=0.4.2",
    "tokenizers>=0.20",
    "torch>=2.2",
    "tqdm>=4.60",
]

TEST = [
    "hypothesis",
    "psutil",
    "pymilvus.model",  # whose interface InstructorEmbeddingFunction has
    "pytest>=8",
    "pytest-timeout",
]

EXTRAS = {
    "spark": ["pyspark[connect]>=3.5"],
    "hub": ["huggingface_hub>=0.23", "protobuf", "sentencepiece"],
    "milvus": ["milvus-lite>=2.4", "pymilvus>=2.5"],
    "bench": [
        "ctranslate2>=4.5",
        "matplotlib",
        "nncf>=3",
        "onnxruntime>=1.20",
        "onnxscript",
        "openvino>=2025.1",
        "sentence-transformers>=6",
    ],
    "test": TEST,
    "dev": [
        *TEST,
        "import-linter>=2.1",
        "ipykernel",  # this one, matplotlib, nbclient and nbformat run the notebooks
        "matplotlib",
        "mlflow-skinny>=3",  # these three run the pages on MLflow
        "sqlalchemy",
        "alembic",
        "mypy",
        "nbclient",
        "nbformat",
        "pandas-stubs",
        "pre-commit",
        "ruff",
        "sentence-transformers>=5",  # whose vectors the tests compare with ours
    ],
}

setup(
    name="spark-instructor-embeddings",
    version=VERSION,
    description="INSTRUCTOR text embeddings as a pure-Python Spark ML annotator",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=["spark", "pyspark", "embeddings", "instructor", "sentence embeddings", "milvus", "databricks"],
    packages=find_packages(include=["spark_instructor", "spark_instructor.*"]),
    entry_points={"console_scripts": ["spark-instructor = spark_instructor.cli:main"]},
    package_data={"spark_instructor": ["py.typed", "models/instructor_tiny/**"]},
    python_requires=">=3.10",
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    zip_safe=False,  # workers memory-map the model that lies in the package
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
)
