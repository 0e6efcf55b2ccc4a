from fed_gswgan.evaluation.samplers import label_agreement


def test_samples_of_the_class_asked_for_agree(judge, spots):
    labels = spots.labels(400)
    assert label_agreement(judge, spots.draw(labels, 7), labels) > 0.95


def test_good_samples_of_the_wrong_class_do_not_agree(judge, spots):
    labels = spots.labels(400)
    shown = (labels + spots.classes // 2) % spots.classes
    assert label_agreement(judge, spots.draw(shown, 7), labels) < 0.05


def test_noise_agrees_by_chance(judge, spots):
    labels = spots.labels(800)
    agreement = label_agreement(judge, spots.noise(labels, 7), labels)
    assert abs(agreement - 1 / spots.classes) < 0.06
