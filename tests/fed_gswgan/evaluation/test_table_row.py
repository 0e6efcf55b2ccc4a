import json

import pytest

from fed_gswgan.evaluation.table import RealScores


def scores() -> RealScores:
    return RealScores(
        dataset="mnist",
        size="small",
        seed=3,
        inception_score=9.0,
        frechet_distance=0.5,
        kernel_distance=-0.001,
        features="pixels",
        mlp_accuracy=0.9,
        cnn_accuracy=0.95,
        average_accuracy=0.8,
        calibrated_accuracy=1.0,
        ratio_of_mean_accuracies=1.0,
        classifier_accuracies={"mlp": 0.9, "lda": 0.7},
        score_classifier="small",
        score_classifier_accuracy=0.99,
        classifier_samples=6000,
        score_samples=6000,
        distance_samples=6000,
        distance_images=10000,
        test_images=10000,
        split="trained on real training images",
        notes=("first", "second"),
        seconds=1.5,
    )


def test_what_goes_through_json_comes_back_equal():
    written = json.loads(json.dumps(scores().to_dict()))
    assert RealScores.from_dict(written) == scores()
    assert RealScores.from_dict(written).notes == ("first", "second")


def test_the_dictionary_holds_every_column_of_the_tables():
    written = scores().to_dict()
    assert {
        "inception_score",
        "frechet_distance",
        "kernel_distance",
        "features",
        "mlp_accuracy",
        "cnn_accuracy",
        "average_accuracy",
        "calibrated_accuracy",
        "ratio_of_mean_accuracies",
        "classifier_accuracies",
    } <= set(written)


def test_a_missing_and_an_unknown_value_are_refused_by_name():
    written = scores().to_dict()
    del written["cnn_accuracy"]
    with pytest.raises(ValueError, match=r"cnn_accuracy must be there .* measure them again"):
        RealScores.from_dict(written)
    with pytest.raises(ValueError, match="old_name must be there"):
        RealScores.from_dict(scores().to_dict() | {"old_name": 1})


def test_seconds_are_no_part_of_a_comparison():
    assert RealScores.from_dict(scores().to_dict() | {"seconds": 9.0}) == scores()
