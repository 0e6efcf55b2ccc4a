import torch

from fed_gswgan.evaluation.scores import ClassifierFeatures, Vgg11


def test_features_are_what_the_logits_are_made_of(spots, judge):
    images = spots.draw(spots.labels(16), 2)
    extractor = ClassifierFeatures(judge, "spots")
    with torch.no_grad():
        features = extractor(images)
        torch.testing.assert_close(judge.logits(features.float()), judge(images))
    assert features.dtype == torch.float64
    assert features.shape == (16, extractor.num_features) == (16, 64)
    assert extractor.description == "spots"


def test_each_classifier_has_its_own_number_of_features():
    assert ClassifierFeatures(Vgg11(10)).num_features == 512
