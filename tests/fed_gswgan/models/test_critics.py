import pytest
import torch

from fed_gswgan.critics.wgan_gp import gradient_penalty
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.models.critics import ConvCritic, MLPCritic
from tests.fed_gswgan.models.conftest import draw_images, seeded


@pytest.fixture(params=[MLPCritic, ConvCritic])
def critic(request):
    return seeded(request.param, IMAGE_SHAPE, 10, 4)


def test_mlp_score_by_hand():
    critic = MLPCritic(IMAGE_SHAPE, num_classes=2, width=2)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
        critic.features[1].weight[0, 0], critic.features[1].weight[1, 0] = 1, -1
        critic.features[3].weight.copy_(torch.eye(2))
        critic.score.weight.copy_(torch.tensor([[2.0, 100.0]]))
        critic.score.bias.fill_(0.5)
        critic.class_embedding.weight[1] = torch.tensor([10.0, 1000.0])
        image = torch.zeros(1, *IMAGE_SHAPE)
        image[..., 0, 0] = 0.5
        # Features 0.5 and -0.5 x 0.2 x 0.2 = -0.02, so 0.5 + 2 x 0.5 + 100 x -0.02 = -0.5;
        # label 1 adds 10 x 0.5 + 1000 x -0.02 = -15.
        assert critic(image, torch.tensor([0])).item() == pytest.approx(-0.5)
        assert critic(image, torch.tensor([1])).item() == pytest.approx(-15.5)


def test_conv_label_adds_the_projection_and_nothing_else():
    critic = seeded(ConvCritic, IMAGE_SHAPE, 2, 4)
    with torch.no_grad():
        critic.class_embedding.weight[1] = 2 * critic.class_embedding.weight[0]
        image, critic.score.weight[:] = draw_images(1), 0.0
    first, second = critic(image.expand(2, -1, -1, -1), torch.tensor([0, 1])) - critic.score.bias
    torch.testing.assert_close(second, 2 * first)
    assert first != 0


@pytest.mark.parametrize("training", [True, False])
def test_a_score_and_its_gradient_depend_on_the_own_row_alone(critic, training):
    critic.train(training)
    images, labels = draw_images(3).requires_grad_(), torch.tensor([1, 2, 9])
    scores = critic(images, labels)
    assert scores.shape == (3,)
    scores[0].backward()
    assert images.grad[0].norm() > 0
    assert images.grad[1:].eq(0).all()
    alone = critic(images[:1], labels[:1])
    torch.testing.assert_close(alone, scores[:1])
    assert critic(images[:1], torch.tensor([3])) != alone


def test_the_class_embedding_has_the_standard_deviation_asked_for():
    for stddev in (0.05, 1.0):
        embedding = seeded(MLPCritic, IMAGE_SHAPE, 10, 128, stddev).class_embedding.weight
        assert embedding.std().item() == pytest.approx(stddev, rel=0.1)


def test_the_gradient_penalty_reaches_every_weight_matrix(critic):
    images, labels = draw_images(3), torch.tensor([0, 1, 2])
    gradient_penalty(critic, images, 1 - images, labels, torch.full((3,), 0.5)).backward()
    matrices = [weight for weight in critic.parameters() if weight.ndim > 1]
    assert all(weight.grad.norm() > 0 for weight in matrices)
    assert (critic.class_embedding.weight.grad[:3].flatten(1).norm(dim=1) > 0).all()


def test_double_backward_matches_finite_differences():
    critic, labels = seeded(ConvCritic, IMAGE_SHAPE, 3, 2).double(), torch.tensor([0, 2])
    images = draw_images(2).double().requires_grad_()

    def penalty():
        (gradients,) = torch.autograd.grad(critic(images, labels).sum(), images, create_graph=True)
        return (gradients.flatten(1).norm(dim=1) - 1).square().mean()

    penalty().backward()
    step = 1e-6
    for weight in (critic.to_half.weight, critic.to_eighth.weight, critic.class_embedding.weight):
        entry = weight.grad.abs().flatten().argmax()
        slopes = []
        for change in (step, -2 * step, step):
            with torch.no_grad():
                weight.view(-1)[entry] += change
            slopes.append(penalty().item() / (2 * step))
        slope = slopes[0] - slopes[1]
        assert weight.grad.view(-1)[entry].item() == pytest.approx(slope, rel=1e-4)
        assert abs(slope) > 1e-6


def test_piecewise_linear_in_the_image(critic):
    # A small enough step stays within one linear piece: the gradient does not change along it.
    image = draw_images(1).double()
    critic.double()

    def gradient(at):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(critic(at, torch.tensor([0])).sum(), at)[0]

    torch.testing.assert_close(gradient(image + 1e-9), gradient(image), rtol=0, atol=1e-12)
