import numpy as np
import pytest
import torch
from torch.nn import functional

from fed_gswgan.baselines.linear_teachers import LinearTeachers

LEARNING_RATE = 1e-2
SAMPLES_BP = torch.rand((4, 784), generator=torch.Generator().manual_seed(2))
LABELS_B = torch.tensor([0, 1, 2, 0])
PROJECTION_PK = torch.randn((784, 5), generator=torch.Generator().manual_seed(3))


def teachers_of(images_MSP: torch.Tensor, labels_MS: torch.Tensor) -> LinearTeachers:
    return LinearTeachers(images_MSP, labels_MS, 3, LEARNING_RATE, np.random.default_rng(0))


def shards(count: int = 3, size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images_MSP = torch.rand((count, size, 784), generator=generator)
    return images_MSP, torch.randint(3, (count, size), generator=generator)


def trained(images_MSP: torch.Tensor, labels_MS: torch.Tensor, steps: int = 3) -> LinearTeachers:
    teachers = teachers_of(images_MSP, labels_MS)
    for _ in range(steps):
        teachers.train(SAMPLES_BP, LABELS_B, 2)
    return teachers


def test_another_record_changes_what_its_own_teacher_says_alone():
    images_MSP, labels_MS = shards()
    changed_MSP = images_MSP.clone()
    changed_MSP[1, :] = 0.0
    said = [
        trained(data_MSP, labels_MS).projected_gradients(SAMPLES_BP, LABELS_B, PROJECTION_PK)
        for data_MSP in (images_MSP, changed_MSP)
    ]
    same = [torch.equal(before, after) for before, after in zip(*said, strict=True)]
    assert same == [True, False, True]


def test_the_projected_gradients_are_those_of_autograd():
    teachers = trained(*shards())
    inputs_BP = SAMPLES_BP.clone().requires_grad_()
    for teacher, (templates_LP, offsets_L) in enumerate(
        zip(teachers._templates_MLP, teachers._offsets_ML, strict=True)
    ):
        logits_B = (templates_LP[LABELS_B] * inputs_BP).sum(1) + offsets_L[LABELS_B]
        (gradients_BP,) = torch.autograd.grad(functional.softplus(-logits_B).sum(), inputs_BP)
        expected_BK = gradients_BP @ PROJECTION_PK
        found_MBK = teachers.projected_gradients(SAMPLES_BP, LABELS_B, PROJECTION_PK)
        assert torch.allclose(found_MBK[teacher], expected_BK, atol=1e-5)


def test_a_step_is_adam_s_on_the_gradient_of_autograd():
    images_MSP, labels_MS = shards(size=1)  # any draw of a batch is the one image
    teachers = teachers_of(images_MSP, labels_MS)
    templates_MLP = torch.zeros(3, 3, 784, requires_grad=True)
    offsets_ML = torch.zeros(3, 3, requires_grad=True)
    optimizer = torch.optim.Adam([templates_MLP, offsets_ML], lr=LEARNING_RATE, betas=(0.5, 0.999))
    for _ in range(3):
        teachers.train(SAMPLES_BP, LABELS_B, 2)
        loss = torch.zeros(())
        for teacher in range(3):
            label = labels_MS[teacher, 0]
            templates_LP, offsets_L = templates_MLP[teacher], offsets_ML[teacher]
            real = templates_LP[label] @ images_MSP[teacher, 0] + offsets_L[label]
            fake_B = (templates_LP[LABELS_B] * SAMPLES_BP).sum(1) + offsets_L[LABELS_B]
            loss = loss + functional.softplus(-real) + functional.softplus(fake_B).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.allclose(teachers._templates_MLP, templates_MLP, atol=1e-5)
    assert torch.allclose(teachers._offsets_ML, offsets_ML, atol=1e-5)


def test_training_tells_images_from_samples():
    images_MSP, labels_MS = shards()
    teachers = teachers_of(0.5 + images_MSP / 2, labels_MS)
    for _ in range(60):
        teachers.train(SAMPLES_BP / 2, LABELS_B, 4)
    fake_MB = teachers._logits(SAMPLES_BP / 2, LABELS_B)
    bright_MB = teachers._logits(0.5 + SAMPLES_BP / 2, LABELS_B)
    assert bright_MB.mean() > fake_MB.mean()
    assert fake_MB.mean() < 0


@pytest.mark.parametrize("steps", [0, 3])
def test_every_sample_has_coordinates(steps):
    said_MBK = trained(*shards(), steps).projected_gradients(SAMPLES_BP, LABELS_B, PROJECTION_PK)
    assert said_MBK.shape == (3, 4, 5)
    assert torch.isfinite(said_MBK).all()
