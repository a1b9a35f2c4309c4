"""Ask the explorer in this container whether it answers; exit with 1 when it does not.

Where something else runs than `proponent serve`, nothing listens, and there is nothing to be ill: exit with 0. A page
that wants a token is an answer, too.
"""

import sys
import urllib.error
import urllib.request
from pathlib import Path

ADDRESS = "http://127.0.0.1:8321/login"


def main() -> int:
    """Return the exit code."""
    words = Path("/proc/1/cmdline").read_bytes().split(b"\0")
    if b"serve" not in words:
        return 0
    try:
        urllib.request.urlopen(ADDRESS, timeout=4).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        return int(answer.code >= 500)
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
