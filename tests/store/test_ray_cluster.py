"""What workers ask a cluster for, by what its nodes have."""

from typing import Any

import pytest

from proponent.store.ray_cluster import RayCluster


class Cluster(RayCluster):
    """A cluster of nodes that are only said to be there; joining a real one is tests/proponent/cluster's."""

    def __init__(self, *nodes: dict[str, float]) -> None:
        self._said = [{"Resources": one} for one in nodes]

    def _nodes(self) -> list[dict[str, Any]]:
        return self._said


CPUS = Cluster({"CPU": 8.0}, {"CPU": 8.0}, {"CPU": 3.0})
GPUS = Cluster({"CPU": 64.0, "GPU": 8.0}, {"CPU": 64.0, "GPU": 4.0}, {"CPU": 16.0})


@pytest.mark.parametrize(
    ("workers", "cpus"), [(1, 8), (2, 8), (3, 4), (4, 4), (5, 3), (6, 2), (9, 2), (10, 1), (19, 1), (100, 1)]
)
def test_few_workers_share_all_cpus_and_find_room_on_the_nodes(workers: int, cpus: int) -> None:
    assert CPUS.room(workers, on_gpu=True) == {"num_cpus": cpus, "num_gpus": 0}
    assert workers > 19 or sum(have // cpus for have in (8, 8, 3)) >= workers


def test_there_is_a_worker_for_every_gpu_and_where_there_are_none_for_every_cpu() -> None:
    assert (CPUS.workers(on_gpu=True), CPUS.workers(on_gpu=False)) == (19, 19)
    assert (GPUS.workers(on_gpu=True), GPUS.workers(on_gpu=False)) == (12, 144)
    assert GPUS.room(12, on_gpu=True) == {"num_cpus": 1, "num_gpus": 1}
    assert GPUS.room(2, on_gpu=False) == {"num_cpus": 64, "num_gpus": 0}


def test_a_model_that_is_spread_has_the_gpus_of_a_node() -> None:
    assert GPUS.workers(on_gpu=True, spread=True) == 2
    assert GPUS.room(2, on_gpu=True, spread=True) == {"num_cpus": 1, "num_gpus": 4}
    assert CPUS.workers(on_gpu=True, spread=True) == 19


def test_a_cluster_that_has_not_grown_yet_is_asked_for_one() -> None:
    assert Cluster().workers(on_gpu=True) == 1
    assert Cluster().room(1, on_gpu=True) == {"num_cpus": 1, "num_gpus": 0}
