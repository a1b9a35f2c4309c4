"""Becomes another program, and has all that this starts end with it, however that ends.

`python -I -S guarded.py FOLDER PROGRAM ARGUMENT...`, which is the first of its group of processes. When the program is
no longer there, its group is killed and the folder is removed; the last of some beside each other take with them
the folder that theirs are in.

Notable: what waits for that is a child of the program alone, in a session of its own. Ray kills the children of a
worker that it ends, and not theirs: a command that trains would stay.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

_TRIES = 50
_WAIT_S = 0.1


def main(folder: str, program: list[str]) -> None:
    """Run a program in the place of this one."""
    group = os.getpid()
    reading, writing = os.pipe()
    if os.fork():
        os.set_inheritable(writing, True)  # it closes with the program; what that starts does not get it
        os.execv(program[0], program)  # noqa: S606  (own arguments)
    os.setsid()
    os.close(writing)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # others wait for their ends
        os.dup2(nothing, stream)
    os.read(reading, 1)
    _end(group)
    shutil.rmtree(folder, ignore_errors=True)
    beside = os.path.dirname(folder)
    with contextlib.suppress(OSError):  # another was faster
        if not any(entry.is_dir() for entry in os.scandir(beside)):
            shutil.rmtree(beside, ignore_errors=True)


def _end(group: int) -> None:
    """Kill a group of processes until there is none of it, and not for ever, since nobody may reap the dead."""
    for _ in range(_TRIES):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(_WAIT_S)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
