"""Threads that wait quietly.

OpenMP's threads spin while they wait. On a machine whose cores are shared, two spinning threads cost a factor of ten
and more; threads that sleep cost nothing measurable.
"""

import os


def wait_quietly() -> None:
    """Ask OpenMP for sleeping threads. Takes effect in a process that has not imported torch yet."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
