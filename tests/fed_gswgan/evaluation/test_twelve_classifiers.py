import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from sklearn.neural_network import MLPClassifier

from fed_gswgan.evaluation.accuracy import TWELVE_CLASSIFIERS, classifier_accuracies

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
# Settings that the libraries no longer take, and so must be spoken of.
GONE = {"logistic_reg": "multi_class", "adaboost": "SAMME.R"}


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


def test_there_are_the_twelve_published_classifiers():
    assert list(TWELVE_CLASSIFIERS) == list(PUBLISHED)


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


@pytest.mark.parametrize("name", GONE)
def test_a_setting_that_is_gone_is_spoken_of_and_really_gone(name):
    entry = TWELVE_CLASSIFIERS[name]
    assert GONE[name] in entry.today
    assert not {"multi_class", "algorithm"} & set(entry.estimator().get_params())


def test_each_learns_what_can_be_learned(accuracies):
    assert list(accuracies) == list(PUBLISHED)
    weak = {"decision_tree", "adaboost", "bagging", "gbm"}  # trees on few of 160 images
    for name, accuracy in accuracies.items():
        assert accuracy > (0.3 if name in weak else 0.7), name


def test_labels_without_meaning_teach_nothing(spots, sets):
    images, labels, test_images, test_labels = sets
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    found = classifier_accuracies(images, shuffled, test_images, test_labels, 0, silent)
    assert np.mean(list(found.values())) == pytest.approx(1 / spots.classes, abs=0.06)


def test_gaussian_bayes_equals_the_formula_in_numpy(sets, accuracies):
    train, labels, test, test_labels = (
        tensor.flatten(1).numpy() if tensor.dim() > 1 else tensor.numpy() for tensor in sets
    )
    classes = np.unique(labels)
    mean = np.stack([train[labels == c].mean(axis=0) for c in classes])
    variance = np.stack([train[labels == c].var(axis=0) for c in classes])
    variance = variance + 1e-9 * train.var(axis=0).max()
    log_density = -0.5 * (np.log(variance) + (test[:, None] - mean) ** 2 / variance).sum(
        axis=2, dtype=np.float64
    )
    assert accuracies["gaussian_nb"] == pytest.approx(
        (log_density.argmax(axis=1) == test_labels).mean(), abs=0.005
    )


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


def test_an_accuracy_is_the_one_scikit_learn_gives_another_start(sets):
    images, labels, test_images, test_labels = sets
    perceptron = MLPClassifier(random_state=0).fit(images.flatten(1), labels)
    expected = accuracy_score(test_labels, perceptron.predict(test_images.flatten(1)))
    found = classifier_accuracies(*sets, seed=3, progress=silent)
    assert found["mlp"] == pytest.approx(expected, abs=0.03)
    assert found != classifier_accuracies(*sets, seed=4, progress=silent)


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
