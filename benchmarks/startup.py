"""How long `proponent --help` takes, beside a Python that only imports click.

Prints medians over interleaved runs, and one JSON object as its last line.
"""

import json
import statistics
import subprocess
import sys
import time

RUNS = 15
COMMANDS = {
    "help": [sys.executable, "-m", "proponent", "--help"],
    "click": [sys.executable, "-c", "import click"],
}


def seconds(command: list[str]) -> float:
    """Return the wall time of one run of a command, in seconds."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    for command in COMMANDS.values():
        seconds(command)  # byte-compiles what is imported
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, command in COMMANDS.items():
        print(f"{medians[name]:.3f} s  {' '.join(command[1:])}")
    print(json.dumps({"help_s": round(medians["help"], 4), "vs_click": round(medians["help"] / medians["click"], 2)}))


if __name__ == "__main__":
    main()
