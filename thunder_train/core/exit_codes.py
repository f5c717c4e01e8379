"""Exit statuses of our programs and of ssh. Constants alone, for the worker imports this module too."""

MISTAKE = 2
"""A mistake of the user: a restart would end the same way."""
STALLED = 70
"""A rank finished no step, or sent no heartbeat, within its timeout."""
RANKS_LOST = 75
"""A rank lost its connection to the others; most often one of those is the cause."""
MPI_DAEMON_LOST = 195
"""Open MPI's status for a rank whose mpirun or orted has ended, perhaps because another rank's host is gone."""
SSH_FAILED = 255
"""ssh itself failed: the host was not reached, is not trusted, or the connection was lost."""
SIGNAL = 128
"""Added to the number of the signal that ended a program, as shells do."""
