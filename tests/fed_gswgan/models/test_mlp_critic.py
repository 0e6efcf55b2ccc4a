import pytest
import torch

from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.training.critic_loss import gradient_penalty


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
