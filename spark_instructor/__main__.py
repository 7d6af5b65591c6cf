"""``python -m spark_instructor``, and a file for ``spark-submit`` to run, which knows no relative imports."""

import sys

from spark_instructor.cli import main

if __name__ == "__main__":
    sys.exit(main())
