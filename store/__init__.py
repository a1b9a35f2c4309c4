"""Where things are stored: the lake's folder, the catalog, Lance tables, commits, locks, snapshots, codes and scans.

This layer knows neither models nor gradients.
"""

import os

# Lance writes its log to stderr as soon as it is imported; its errors reach us as exceptions anyway.
os.environ.setdefault("LANCE_LOG", "error")
