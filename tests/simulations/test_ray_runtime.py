import signal

import pytest
import ray

from simulations.ray_runtime import run_on_ray, temporary_folder


class Started(Exception):
    """Ray was asked to start."""


@pytest.mark.parametrize(
    ("given", "asked"),
    [("", {"address": "local", "num_cpus": 3}), ("127.0.0.1:6390", {"address": "127.0.0.1:6390"})],
)
def test_ray_starts_here_or_joins_the_cluster_that_is_named(monkeypatch, given, asked):
    """Never one that another program left behind on this machine."""
    found = {}
    term = signal.getsignal(signal.SIGTERM)

    def init(**arguments):
        found.update(arguments)
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        raise Started

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(Started):
        run_on_ray(lambda grid: None, {}, 4, 3, given)
    assert {name: found[name] for name in ("address", "num_cpus") if name in found} == asked
    assert signal.getsignal(signal.SIGTERM) == term
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, None),
        ({"TMPDIR": "/scratch/me"}, None),
        ({"TMPDIR": "/scratch/" + 100 * "x"}, "/tmp/ray"),
        ({"TMPDIR": "/scratch/" + 15 * "\u00e9"}, "/tmp/ray"),  # two bytes each
        ({"TMPDIR": "/scratch/" + 100 * "x", "RAY_TMPDIR": "/fast"}, None),
    ],
)
def test_a_temporary_folder_too_long_for_rays_sockets_is_left(environment, chosen):
    assert temporary_folder(environment) == chosen
