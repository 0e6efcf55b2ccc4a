import warnings

import numpy as np
import pytest

from fed_gswgan.evaluation.accuracy import (
    TWELVE_CLASSIFIERS,
    calibrated_accuracy,
    classifier_accuracies,
    ratio_of_mean_accuracies,
)

ON_SAMPLES = {"good": 0.6, "bad": 0.3}
ON_REAL = {"bad": 0.4, "good": 0.8}


def test_both_readings_agree_where_every_classifier_loses_the_same_share():
    assert calibrated_accuracy(ON_SAMPLES, ON_REAL) == pytest.approx(0.75)
    assert ratio_of_mean_accuracies(ON_SAMPLES, ON_REAL) == pytest.approx(0.75)


def test_a_bad_classifier_weighs_as_much_as_a_good_one_in_the_mean_of_ratios_alone():
    kept = {"good": 0.4, "bad": 0.4}  # half of one classifier's accuracy, all of the other's
    assert calibrated_accuracy(kept, ON_REAL) == pytest.approx((0.5 + 1) / 2)
    assert ratio_of_mean_accuracies(kept, ON_REAL) == pytest.approx(0.8 / 1.2)


@pytest.mark.parametrize("ratio", [calibrated_accuracy, ratio_of_mean_accuracies])
def test_other_classifiers_and_a_useless_reference_are_refused(ratio):
    with pytest.raises(ValueError, match="classifiers bad: must be measured on samples and on"):
        ratio({"good": 0.5}, ON_REAL)
    with pytest.raises(ValueError, match=r"accuracy-on-real-images=0\.0 must be > 0"):
        ratio(ON_SAMPLES, {"good": 0.8, "bad": 0.0})


# Class and settings as published, less those that are gone from the libraries.
PUBLISHED = {
    "logistic_reg": ("LogisticRegression", {"solver": "lbfgs", "max_iter": 5000}),
    "random_forest": ("RandomForestClassifier", {"n_estimators": 100, "class_weight": "balanced"}),
    "gaussian_nb": ("GaussianNB", {}),
    "bernoulli_nb": ("BernoulliNB", {"binarize": 0.5}),
    "linear_svc": ("LinearSVC", {"loss": "hinge", "max_iter": 10000, "tol": 1e-8}),
    "decision_tree": (
        "DecisionTreeClassifier",
        {
            "class_weight": "balanced",
            "criterion": "gini",
            "splitter": "best",
            "min_samples_split": 2,
            "min_samples_leaf": 1,
            "min_weight_fraction_leaf": 0.0,
            "min_impurity_decrease": 0.0,
        },
    ),
    "lda": (
        "LinearDiscriminantAnalysis",
        {"solver": "eigen", "n_components": 9, "tol": 1e-8, "shrinkage": 0.5},
    ),
    "adaboost": ("AdaBoostClassifier", {"n_estimators": 100}),
    "mlp": ("MLPClassifier", {}),
    "bagging": ("BaggingClassifier", {"max_samples": 0.1, "n_estimators": 20}),
    "gbm": ("GradientBoostingClassifier", {"subsample": 0.1, "n_estimators": 50}),
    "xgboost": (
        "XGBClassifier",
        {"colsample_bytree": 0.1, "objective": "multi:softprob", "n_estimators": 50},
    ),
}


def silent(_line):
    pass


@pytest.fixture(scope="module")
def sets(spots):
    """160 training and 400 test images of eight classes."""
    labels, test_labels = spots.labels(160), spots.labels(400)
    return spots.draw(labels, 1), labels, spots.draw(test_labels, 2), test_labels


@pytest.fixture(scope="module")
def accuracies(sets):
    return classifier_accuracies(*sets, seed=0, progress=silent)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_setting_is_the_published_one_and_all_others_are_defaults(name):
    entry = TWELVE_CLASSIFIERS[name]
    kind, published = PUBLISHED[name]
    assert entry.estimator.__name__ == kind
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a deprecated setting is one to speak of
        found = entry.estimator(**entry.settings).get_params()
    defaults = entry.estimator().get_params()
    assert found == {**defaults, **published}


def test_each_learns_what_can_be_learned(accuracies):
    assert list(accuracies) == list(PUBLISHED)
    weak = {"decision_tree", "adaboost", "bagging", "gbm"}  # trees on few of 160 images
    for name, accuracy in accuracies.items():
        assert accuracy > (0.3 if name in weak else 0.7), name


def test_bernoulli_bayes_equals_the_formula_in_numpy(sets, accuracies):
    train, labels, test, test_labels = (
        tensor.flatten(1).numpy() if tensor.dim() > 1 else tensor.numpy() for tensor in sets
    )
    inked = np.stack(
        [((train[labels == c] > 0.5).sum(axis=0) + 1) / ((labels == c).sum() + 2) for c in range(8)]
    )
    test = test > 0.5
    log_likelihood = test @ np.log(inked).T + ~test @ np.log(1 - inked).T
    assert accuracies["bernoulli_nb"] == (log_likelihood.argmax(axis=1) == test_labels).mean()


def test_the_seed_decides_and_progress_tells_each_accuracy_in_turn(sets, accuracies):
    lines = []
    assert classifier_accuracies(*sets, seed=0, progress=lines.append) == accuracies
    assert [line.split(":")[0] for line in lines] == list(PUBLISHED)
    assert f"{accuracies['mlp']:.4f} on 400 real images" in lines[8]


def test_a_class_without_a_training_image_is_refused(sets):
    images, labels, test_images, test_labels = sets
    kept = labels != 2
    with pytest.raises(ValueError, match="train labels: no image of class 2"):
        classifier_accuracies(images[kept], labels[kept], test_images, test_labels, 0, silent)
