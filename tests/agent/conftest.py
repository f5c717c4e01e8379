"""The worker's folder of a nano base and rows, for ranks that Open MPI starts."""

from tests.worker.conftest import folder as folder
