import pytest
import torch

from fed_gswgan.models.conv_critic import ConvCritic


def build(num_classes=10, width=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvCritic(num_classes, width)


def draw_images(rows):
    return torch.rand(rows, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("num_classes", [10, 62])
@pytest.mark.parametrize("width", [1, 5])
def test_one_finite_score_per_image(rows, num_classes, width):
    scores = build(num_classes, width)(draw_images(rows), torch.full((rows,), num_classes - 1))
    assert scores.shape == (rows,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_score_does_not_depend_on_the_rest_of_the_batch(training):
    critic = build().train(training)
    images, labels = draw_images(3), torch.tensor([1, 2, 3])
    scores = critic(images, labels)
    torch.testing.assert_close(critic(images[:1], labels[:1]), scores[:1])
    images[1:], labels[1:] = 0.0, 9
    assert torch.equal(critic(images, labels)[0], scores[0])


def test_label_adds_the_projection_and_nothing_else():
    critic = build(num_classes=2)
    with torch.no_grad():
        critic.class_embedding.weight[1] = 2 * critic.class_embedding.weight[0]
        image, critic.score.weight[:] = draw_images(1), 0.0
    first, second = critic(image.expand(2, -1, -1, -1), torch.tensor([0, 1])) - critic.score.bias
    torch.testing.assert_close(second, 2 * first)
    assert first != 0


def test_input_gradient_of_a_row_is_its_own_and_not_zero():
    critic, images = build(), draw_images(3).requires_grad_()
    critic(images, torch.tensor([1, 2, 3]))[0].backward()
    assert images.grad[0].norm() > 0
    assert images.grad[1:].eq(0).all()


def test_double_backward_matches_finite_differences():
    critic, labels = build(num_classes=3, width=2).double(), torch.tensor([0, 2])
    images = draw_images(2).double().requires_grad_()

    def penalty():
        (gradients,) = torch.autograd.grad(critic(images, labels).sum(), images, create_graph=True)
        return (gradients.flatten(1).norm(dim=1) - 1).square().mean()

    penalty().backward()
    step = 1e-6
    for weight in (critic.to_14x14.weight, critic.to_4x4.weight, critic.class_embedding.weight):
        entry = weight.grad.abs().flatten().argmax()
        with torch.no_grad():
            weight.view(-1)[entry] += step
        above = penalty().item()
        with torch.no_grad():
            weight.view(-1)[entry] -= 2 * step
        below = penalty().item()
        with torch.no_grad():
            weight.view(-1)[entry] += step
        slope = (above - below) / (2 * step)
        assert weight.grad.view(-1)[entry].item() == pytest.approx(slope, rel=1e-4)
        assert abs(slope) > 1e-6


def test_piecewise_linear_in_the_image():
    # A small enough step stays within one linear piece: the gradient does not change along it.
    critic, image = build(), draw_images(1).double()
    critic.double()

    def gradient(at):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(critic(at, torch.tensor([0])).sum(), at)[0]

    torch.testing.assert_close(gradient(image + 1e-9), gradient(image), rtol=0, atol=1e-12)


def test_initialisation_is_decided_by_the_torch_seed():
    first, second = build().state_dict(), build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("width", "parameters"), [(64, 1_071_105), (32, 279_553), (16, 75_777)])
def test_parameter_count(width, parameters):
    critic = ConvCritic(10, width)
    assert sum(parameter.numel() for parameter in critic.parameters()) == parameters
