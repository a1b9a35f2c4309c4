"""Makes every Python of an environment one of a host of its own, whose leases live for seconds, with small units."""

import os
import socket
from datetime import timedelta

socket.gethostname = lambda: os.environ["TEST_HOST"]

from proponent.store import leases  # noqa: E402

leases.TTL = timedelta(seconds=float(os.environ["TEST_TTL_S"]))

from proponent.ingest import pieces  # noqa: E402

pieces.PIECE_BYTES = 2000  # type: ignore[misc]
