"""A whole run that a crash interrupts, and what the budget says when it goes on."""

import pytest
from safetensors.torch import load_file

import fed_gswgan
from fed_gswgan.reporting.run_folder import config_of_run
from fed_gswgan.wire.message_types import TRAIN

pytestmark = pytest.mark.usefixtures("task_identity")


class Crash(Exception):
    """Stands for the end of the server's process."""


def crashing_at(push):
    """Return a wrapper of a Grid that crashes when this many rounds were asked."""

    def wrapped(grid):
        push_messages, asked = grid.push_messages, []

        def crash(messages):
            messages = list(messages)
            if any(message.metadata.message_type == TRAIN for message in messages):
                asked.append(messages)
            ids = push_messages(messages)
            if len(asked) == push:
                raise Crash
            return ids

        grid.push_messages = crash
        return grid

    return wrapped


def weights_of(run):
    (path,) = (run / "checkpoint").glob("*.safetensors")
    return {name: tensor.tolist() for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("push", [2, 4])
def test_a_calibrated_run_ends_with_the_same_weights_after_a_crash(small_run, push):
    settings = {"epsilon": 5.0, "noise_stddev": 0.0, "cohort_size": 4}
    whole = small_run("whole", **settings)
    with pytest.raises(Crash):
        small_run("crashed", grid=crashing_at(push), **settings)
    # The round that was asked is repeated: its noise is seeded, so it is charged once.
    resumed = small_run("crashed", resume=True, **settings | noise_of(whole))
    assert weights_of(resumed) == weights_of(whole)
    assert fed_gswgan.epsilon_of_run(resumed) == pytest.approx(5.0, rel=1e-9)


def noise_of(run):
    kept = config_of_run(run)
    return {key.replace("-", "_"): kept[key] for key in ("epsilon", "noise-stddev", "max-epsilon")}
