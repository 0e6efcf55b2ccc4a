"""Each example does what its page says, through the ordinary command where it is a plug-in."""

import json
import math

import pytest
import torch
from torchvision.io import read_image

import fed_gswgan
from examples import federated_digits

TINY = {
    "rounds": 2, "cohort-size": 3, "max-clients": 3, "noise-stddev": 2.14, "noise-source": "seeded",
    "evaluation-samples": 0, "batch-size": 4, "critic": "mlp",
    "generator-width": 4, "critic-width": 4,
}  # fmt: skip


@pytest.fixture
def run_of(tmp_path, task_identity):
    """Return a function that runs with these settings and returns summary and folder."""

    def run(**settings):
        table = TINY | {key.replace("_", "-"): value for key, value in settings.items()}
        folder = fed_gswgan.run(table, tmp_path / "run", quiet=True)
        return json.loads((folder / "summary.json").read_text()), folder

    return run


def test_federated_digits_spends_what_three_releases_cost(tmp_path):
    epsilon = federated_digits.main(tmp_path / "digits.png")
    assert epsilon == pytest.approx(fed_gswgan.epsilon(3, 2.14, rows=16), rel=1e-12)
    assert read_image(str(tmp_path / "digits.png")).float().std() > 1


def test_a_new_algorithm_runs_and_its_mean_is_an_image(run_of):
    summary, folder = run_of(
        algorithm="examples.new_algorithm:MeanImages", algorithm_settings="momentum = 0.25"
    )
    assert summary["algorithm"] == "examples.new_algorithm:MeanImages"
    # Ten rows and the extra number are bounded each by itself: 11 parts, two releases.
    mu = math.sqrt(2 * 11) * 2 / 2.14
    assert summary["privacy"]["mu"] == pytest.approx(mu, rel=1e-12)
    samples = fed_gswgan.sample(folder, [0, 1])
    assert samples.shape == (2, 1, 28, 28)
    assert not torch.equal(torch.tensor(samples[0]), torch.tensor(samples[1]))


def test_a_new_critic_moves_the_generator(run_of):
    summary, folder = run_of(critic="examples.new_critic:MeanCritic", noise_stddev=1e-3)
    assert summary["replies"]["received"] == 6
    assert not list((folder / "clients").rglob("failures.log"))


def test_a_new_data_set_of_another_shape_trains_end_to_end(run_of):
    summary, folder = run_of(dataset="examples.new_dataset:Stripes", critic="conv")
    assert (summary["dataset"], summary["classes"]) == ("stripes", 2)
    assert not list((folder / "clients").rglob("failures.log"))
    assert fed_gswgan.sample(folder, [0, 1, 1]).shape == (3, 3, 32, 32)
