from dataclasses import replace

import pytest
import torch

from fed_gswgan.evaluation.distances import FULL, FULL_ON_CPU, SMALL, metric_size


def test_full_is_the_published_protocol():
    assert FULL.classifier_samples == 60_000
    assert FULL.lenet_epochs == 50
    assert (FULL.score_classifier, FULL.score_training) == ("vgg11", 50)
    assert FULL.features == "inception"
    assert (FULL.distance_samples, FULL.distance_images) == (20_000, 60_000)


def test_full_on_a_cpu_replaces_the_two_large_networks_alone():
    replaced = replace(
        FULL_ON_CPU,
        name=FULL.name,
        score_classifier=FULL.score_classifier,
        score_training=FULL.score_training,
        features=FULL.features,
    )
    assert replaced == FULL


def test_a_preset_s_sizes_are_those_that_the_device_can_bear():
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert metric_size("small", cpu) == metric_size("small", cuda) == SMALL
    assert metric_size("full", cuda) == FULL
    assert metric_size("full", cpu) == FULL_ON_CPU


def test_sizes_have_names_of_their_own():
    assert len({SMALL.name, FULL.name, FULL_ON_CPU.name}) == 3


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("classifier_samples", 1),
        ("lenet_epochs", 0),
        ("score_classifier", "resnet"),
        ("score_training", 0),
        ("features", "pixels"),
        ("distance_samples", 1),
        ("distance_images", 1),
    ],
)
def test_a_size_out_of_range_is_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=setting.replace("_", "-")):
        replace(SMALL, **{setting: value})
