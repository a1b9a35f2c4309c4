"""Makes every Python of a Ray node one of a host of its own, perhaps with another torch, or without proponent."""

import importlib.metadata
import os
import socket
import sys

if "TEST_HOST" in os.environ:
    socket.gethostname = lambda: os.environ["TEST_HOST"]

if "TEST_TORCH" in os.environ:
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: os.environ["TEST_TORCH"] if name == "torch" else version(name)

if "TEST_WITHOUT" in os.environ:
    sys.modules[os.environ["TEST_WITHOUT"]] = None  # type: ignore[assignment]
