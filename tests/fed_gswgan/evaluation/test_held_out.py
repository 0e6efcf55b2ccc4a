import numpy as np
import pytest
import torch

from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.evaluation.report import evaluate, evaluate_on_held_out
from tests.fed_gswgan.colour_images import ColourSource

LABELS = np.arange(60, dtype=np.int64) % 2


class HalfInked:
    """A source whose held-out images of one class are dark above, of the other below."""

    class_names = ("above", "below")

    def held_out(self) -> LabelledImages:
        return LabelledImages(half_inked(torch.from_numpy(LABELS), 7).numpy(), LABELS)


def half_inked(labels_B: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = 0.4 * torch.rand(len(labels_B), 1, 28, 28, generator=generator)
    for image, label in zip(images, labels_B.tolist(), strict=True):
        image[:, 14 * label : 14 * label + 14] += 0.5
    return images


def test_a_generator_is_measured_on_the_images_that_no_client_holds():
    source = HalfInked()
    held_out = source.held_out()
    expected = evaluate(
        half_inked, torch.from_numpy(held_out.images), torch.from_numpy(held_out.labels), 2, 40, 0
    )
    found = evaluate_on_held_out(half_inked, source, 40)
    assert found == expected
    assert found.held_out_images == 60
    assert found.label_agreement == 1


def test_a_generator_of_colours_is_measured_in_their_shape():
    source = ColourSource()
    real = source.held_out()
    pools = {label: torch.from_numpy(real.images[real.labels == label]) for label in (0, 1)}

    def sampler(labels_B, seed):
        return torch.stack([pools[label][seed % 20] for label in labels_B.tolist()])

    found = evaluate_on_held_out(sampler, source, 40)
    assert found.label_agreement == 1
    assert found.downstream_accuracy == 1
    with pytest.raises(ValueError, match=r"must be torch.float32 \(40, 3, 32, 32\)"):
        evaluate_on_held_out(half_inked, source, 40)
