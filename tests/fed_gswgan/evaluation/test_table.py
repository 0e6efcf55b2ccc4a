import json
from dataclasses import replace

import pytest
import torch

from fed_gswgan.data.whole_dataset import WholeDataset
from fed_gswgan.evaluation import table as module
from fed_gswgan.evaluation.classifier import accuracy
from fed_gswgan.evaluation.distances import SMALL, inception_score
from fed_gswgan.evaluation.samplers import draw_samples
from fed_gswgan.evaluation.scores import InceptionUnavailable
from fed_gswgan.evaluation.table import (
    RealScores,
    in_bytes,
    real_scores,
    table_judge,
    table_metrics,
)

TINY = replace(
    SMALL,
    name="tiny",
    classifier_samples=160,
    lenet_epochs=25,
    score_training=60,
    distance_samples=100,
    distance_images=200,
)


def silent(_line):
    pass


@pytest.fixture(scope="module")
def data(spots):
    labels, test_labels = spots.labels(240), spots.labels(200)
    return WholeDataset(
        dataset="spots",
        train_images_NCHW=spots.draw(labels, 1),
        train_labels_N=labels,
        test_images_NCHW=spots.draw(test_labels, 2),
        test_labels_N=test_labels,
        class_names=tuple("abcdefgh"),
    )


@pytest.fixture(scope="module")
def real(data):
    return real_scores(data, TINY, 0, silent)


@pytest.fixture(scope="module")
def good(data, spots, real):
    return table_metrics(spots.draw, data, TINY, 0, real, silent)


def test_samples_as_good_as_real_images_score_like_them(good, real):
    assert good.average_accuracy == pytest.approx(real.average_accuracy, abs=0.06)
    assert good.cnn_accuracy == pytest.approx(real.cnn_accuracy, abs=0.1)
    assert good.inception_score == pytest.approx(real.inception_score, rel=0.1)
    assert good.calibrated_accuracy == pytest.approx(1, abs=0.1)
    assert abs(good.kernel_distance) < 0.1


def test_noise_is_worse_in_every_column(data, spots, real, good):
    bad = table_metrics(spots.noise, data, TINY, 0, real, silent)
    assert bad.inception_score < good.inception_score
    assert bad.frechet_distance > 2 * good.frechet_distance
    assert bad.kernel_distance > 2 * good.kernel_distance
    assert bad.mlp_accuracy < good.mlp_accuracy
    assert bad.cnn_accuracy < good.cnn_accuracy
    assert bad.average_accuracy < good.average_accuracy / 2
    assert bad.calibrated_accuracy < good.calibrated_accuracy / 2
    assert bad.ratio_of_mean_accuracies < good.ratio_of_mean_accuracies / 2


def test_samples_come_with_as_many_of_each_class_and_the_judge_scores_all_of_them(
    data, spots, good
):
    labels = torch.arange(TINY.classifier_samples) % 8
    samples = in_bytes(draw_samples(spots.draw, labels, "table", 0))
    judge = table_judge(data, TINY, 0, silent)
    assert good.inception_score == inception_score(judge, samples, 0)
    assert good.score_classifier_accuracy == accuracy(
        judge, data.test_images_NCHW, data.test_labels_N
    )


def test_samples_keep_the_greys_of_real_images_and_lose_all_others(spots):
    bytes_N = torch.arange(256).float() / 255
    assert torch.equal(in_bytes(bytes_N), bytes_N)
    between = torch.tensor([0.0, 0.0019, 0.0020, 0.9979, 1.0])
    assert (in_bytes(between) * 255).round().tolist() == [0, 0, 1, 254, 255]


def test_real_images_have_calibrated_accuracy_one_and_come_back_from_json(real):
    assert real.calibrated_accuracy == real.ratio_of_mean_accuracies == 1
    assert RealScores.from_dict(json.loads(json.dumps(real.to_dict()))) == real


def test_without_real_scores_nothing_is_calibrated_and_a_judge_of_before_serves(
    data, spots, good, monkeypatch
):
    judge = table_judge(data, TINY, 0, silent)
    monkeypatch.setattr(module, "train_score_classifier", None)
    found = table_metrics(spots.draw, data, TINY, 0, None, silent, judge)
    assert found == replace(good, calibrated_accuracy=None, ratio_of_mean_accuracies=None)


def test_real_scores_of_another_size_or_data_set_are_refused(data, spots, real):
    for other in (replace(real, size="full"), replace(real, dataset="mnist")):
        with pytest.raises(ValueError, match="must be measured on spots, tiny"):
            table_metrics(spots.draw, data, TINY, 0, other, silent)


def test_without_inception_the_judges_features_serve_and_the_note_says_why(
    data, spots, good, monkeypatch
):
    def unavailable(_device):
        raise InceptionUnavailable("no network here")

    monkeypatch.setattr(module, "inception_features", unavailable)
    size = replace(TINY, features="inception")
    judge = table_judge(data, TINY, 0, silent)
    extractor, notes = module._extractor(judge, data, size)
    assert extractor.description == good.features
    assert notes == ["distances are not FID and KID: no network here"]


def test_a_missing_and_an_unknown_value_are_refused_by_name(real):
    written = real.to_dict()
    with pytest.raises(ValueError, match="old_name must be there"):
        RealScores.from_dict(written | {"old_name": 1})
    del written["cnn_accuracy"]
    with pytest.raises(ValueError, match=r"cnn_accuracy must be there .* measure them again"):
        RealScores.from_dict(written)


def test_distances_in_features_of_a_classifier_are_not_called_fid(good):
    assert good.features == "classifier: small, 60 steps on real training images"
    assert any("not FID and KID" in note for note in good.notes)
