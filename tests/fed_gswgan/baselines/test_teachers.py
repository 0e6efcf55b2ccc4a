import numpy as np
import torch

from fed_gswgan.baselines.teachers import Teachers


def teachers_of(images_MSP: torch.Tensor, labels_MS: torch.Tensor) -> Teachers:
    randomness = np.random.default_rng(0)
    return Teachers(images_MSP, labels_MS, 3, 4, 1e-2, randomness)


def shards(count: int = 3, size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images_MSP = torch.rand((count, size, 784), generator=generator)
    return images_MSP, torch.randint(3, (count, size), generator=generator)


SAMPLES_BP = torch.rand((4, 784), generator=torch.Generator().manual_seed(2))
LABELS_B = torch.tensor([0, 1, 2, 0])


def test_another_record_changes_the_gradient_of_its_own_teacher_alone():
    images_MSP, labels_MS = shards()
    changed_MSP = images_MSP.clone()
    changed_MSP[1, :] = 0.0
    gradients = []
    for data_MSP in (images_MSP, changed_MSP):
        teachers = teachers_of(data_MSP, labels_MS)
        for _ in range(3):
            teachers.train(SAMPLES_BP, LABELS_B, 2)
        gradients.append(teachers.sample_gradients(SAMPLES_BP, LABELS_B))
    same = [torch.equal(before, after) for before, after in zip(*gradients, strict=True)]
    assert same == [True, False, True]


def test_the_gradients_are_those_of_each_teacher_s_own_loss():
    teachers = teachers_of(*shards())
    gradients_MBP = teachers.sample_gradients(SAMPLES_BP, LABELS_B)
    assert gradients_MBP.shape == (3, 4, 784)
    moved_BP = SAMPLES_BP.clone()
    moved_BP[2] -= 1.0 * gradients_MBP[0, 2] / gradients_MBP[0, 2].norm()
    expanded = LABELS_B.expand(3, -1)
    before_MB = teachers._logits(SAMPLES_BP.expand(3, -1, -1), expanded)
    after_MB = teachers._logits(moved_BP.expand(3, -1, -1), expanded)
    assert after_MB[0, 2] > before_MB[0, 2]
    assert torch.equal(after_MB[0, :2], before_MB[0, :2])


def test_training_tells_images_from_samples():
    images_MSP, labels_MS = shards()
    bright_MSP = 0.5 + images_MSP / 2
    dark_BP = SAMPLES_BP / 2
    teachers = teachers_of(bright_MSP, labels_MS)
    for _ in range(60):
        teachers.train(dark_BP, LABELS_B, 4)
    real_MS = teachers._logits(bright_MSP, labels_MS)
    fake_MB = teachers._logits(dark_BP.expand(3, -1, -1), LABELS_B.expand(3, -1))
    assert real_MS.mean() > 0 > fake_MB.mean()
