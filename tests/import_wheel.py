"""Import the package from a wheel that is installed without extras. `make test-wheel` runs this script."""

import sys
from importlib import import_module, util
from pathlib import Path

assert util.find_spec("pyspark") is None, "pyspark was installed without the spark extra"
package = import_module("spark_instructor")
loaded = {"pymilvus", "torch"} & set(sys.modules)
assert not loaded, f"import spark_instructor loads {loaded}"
encoder = import_module("spark_instructor.encoder")
for name in encoder.__all__:
    getattr(encoder, name)  # names are imported when they are first used
import_module("spark_instructor.models.prepared")

folder = Path(package.__file__).parent
assert Path(sys.prefix) in folder.parents, f"{folder} is not the installed package"
assert (folder / "py.typed").is_file(), "the wheel lacks py.typed"
print(f"imported from {folder}")
