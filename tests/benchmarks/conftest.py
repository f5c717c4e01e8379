"""The benchmarks are programs with modules beside them, not a package."""

import sys

from tests.helpers.project_copy import PROJECT

sys.path.append(str(PROJECT / "benchmarks"))
