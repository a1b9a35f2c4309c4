"""The demonstration from an empty folder, and once more when it is done: wall time, peak memory, what it finds.

Runs `proponent demo` as a whole process. Prints one JSON object as its last line, with the ratio of the second run
to the first.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ACCURACY = re.compile(
    r"(TrackStar|gradient dot product) +among +([\d,]+) passages: +([\d.]+)% of (\d+) facts, .* ([\d.]+)$"
)


def run(folder: Path) -> tuple[float, float, str]:
    """Run the demonstration; return seconds, peak memory in MiB, and what it printed."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "proponent", "demo", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the demonstration failed with exit code {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024, printed


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "proponent-demo"
        first_s, peak_mib, printed = run(folder)
        again_s, _, _ = run(folder)
    found = [match.groups() for match in map(ACCURACY.search, printed.splitlines()) if match]
    for method, n_passages, top_10, n_facts, rank in found:
        print(f"{method:21} {n_passages:>6} passages  top 10 {top_10:>5} % of {n_facts} facts  MRR {rank}")
    print(f"first run {first_s:.1f} s, {peak_mib:.0f} MiB; second run {again_s:.1f} s")
    print(
        json.dumps(
            {
                "first_s": round(first_s, 1),
                "again_vs_first": round(again_s / first_s, 3),
                "peak_mib": round(peak_mib),
                "top_10": [float(row[2]) for row in found],
                "mrr": [float(row[4]) for row in found],
            }
        )
    )


if __name__ == "__main__":
    main()
