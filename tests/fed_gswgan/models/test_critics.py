import pytest
import torch

from fed_gswgan.critics.wgan_gp import gradient_penalty
from fed_gswgan.models.critics import ConvCritic, MLPCritic


@pytest.fixture
def critic():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLPCritic(num_classes=5, width=8)


@pytest.fixture
def images():
    return torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def test_score_is_linear_in_the_features_plus_their_product_with_the_label_embedding():
    critic = MLPCritic(num_classes=2, width=2)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
        critic.features[1].weight[0, 0], critic.features[1].weight[1, 0] = 1, -1
        critic.features[3].weight.copy_(torch.eye(2))
        critic.score.weight.copy_(torch.tensor([[2.0, 100.0]]))
        critic.score.bias.fill_(0.5)
        critic.class_embedding.weight[1] = torch.tensor([10.0, 1000.0])
        image = torch.zeros(1, 1, 28, 28)
        image[..., 0, 0] = 0.5
        # Features 0.5 and -0.5 x 0.2 x 0.2 = -0.02, so 0.5 + 2 x 0.5 + 100 x -0.02 = -0.5;
        # label 1 adds 10 x 0.5 + 1000 x -0.02 = -15.
        assert critic(image, torch.tensor([0])).item() == pytest.approx(-0.5)
        assert critic(image, torch.tensor([1])).item() == pytest.approx(-15.5)


def test_a_score_depends_on_its_own_image_and_label_alone(critic, images):
    scores = critic(images, torch.tensor([0, 1, 2]))
    assert scores.shape == (3,)
    images[1] = 0
    changed = critic(images, torch.tensor([0, 3, 2]))
    torch.testing.assert_close(changed[[0, 2]], scores[[0, 2]])
    assert changed[1] != scores[1]


def test_label_changes_the_score(critic, images):
    scores = critic(images[:1].expand(5, -1, -1, -1), torch.arange(5))
    assert len(scores.unique()) == 5


def test_the_gradient_penalty_reaches_every_weight_matrix(critic, images):
    labels, mix = torch.tensor([0, 1, 2]), torch.full((3,), 0.5)
    gradient_penalty(critic, images, 1 - images, labels, mix).backward()
    for matrix in (critic.features[1].weight, critic.features[3].weight, critic.score.weight):
        assert matrix.grad.norm() > 0
    assert (critic.class_embedding.weight.grad[:3].norm(dim=1) > 0).all()


def test_train_and_eval_mode_score_alike(critic, images):
    labels = torch.tensor([0, 1, 2])
    assert torch.equal(critic.train()(images, labels), critic.eval()(images, labels))


def test_the_class_embedding_begins_as_large_as_asked_for():
    for stddev in (0.05, 1.0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            embedding = MLPCritic(10, 128, stddev).class_embedding.weight
        assert float(embedding.std()) == pytest.approx(stddev, rel=0.1)


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
