import pytest
import ray

from simulations.ray_runtime import run_on_ray


class Started(Exception):
    """Ray was asked to start."""


@pytest.mark.parametrize(
    ("given", "asked"),
    [("", {"address": "local", "num_cpus": 3}), ("127.0.0.1:6390", {"address": "127.0.0.1:6390"})],
)
def test_ray_starts_here_or_joins_the_cluster_that_is_named(monkeypatch, given, asked):
    """Never one that another program left behind on this machine."""
    found = {}

    def init(**arguments):
        found.update(arguments)
        raise Started

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(Started):
        run_on_ray(lambda grid: None, {}, 4, 3, given)
    assert {name: found[name] for name in ("address", "num_cpus") if name in found} == asked
