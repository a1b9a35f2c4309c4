"""Starts the nodes of a Ray cluster, and ends them when its standard input closes.

Each line of standard input asks for a node: JSON with its CPUs and its environment. Each line of standard output says
its process and the address of the cluster.
"""

import json
import logging
import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray._common.utils import get_default_ray_temp_dir
from ray.cluster_utils import Cluster

logging.disable(logging.WARNING)
os.makedirs(get_default_ray_temp_dir(), exist_ok=True)  # the address is written there, whatever folder a node has
cluster = Cluster()
try:
    for line in sys.stdin:
        asked = json.loads(line)
        node = cluster.add_node(
            wait=asked["wait"],
            num_cpus=asked["cpus"],
            env_vars=asked["environment"],
            object_store_memory=80 << 20,
            include_dashboard=False,
            temp_dir=asked["folder"],
        )
        raylet = node.all_processes["raylet"][0].process.pid
        print(json.dumps({"pid": raylet, "address": cluster.address}), flush=True)
finally:
    cluster.shutdown()
