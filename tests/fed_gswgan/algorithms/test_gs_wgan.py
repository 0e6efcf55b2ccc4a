"""GS-WGAN against slow references of its update and its step, in networks of few numbers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from fed_gswgan.algorithms.base import ClientView, Mean, ReleaseShape
from fed_gswgan.algorithms.gs_wgan import Client, Server, Settings, keeps_state
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.field import adapt
from fed_gswgan.models.registry import build_critic, build_generator
from fed_gswgan.seeding import SeedStream

TINY = {
    "critic": "mlp", "batch-size": 4, "critic-width": 6, "critic-steps": 3, "generator-width": 4,
    "latent-dim": 3,
}  # fmt: skip
SEEDS = SeedStream(0)


def both(spec, **changed):
    settings = Settings.from_table(TINY | {k.replace("_", "-"): v for k, v in changed.items()})
    return Client(settings, spec), Server(settings, spec, SEEDS, rounds=10)


def mean_of(shape, seed=0):
    rows = np.random.default_rng(seed).standard_normal((shape.rows, shape.numbers))
    return Mean(rows, np.empty(0), clients=3, noise_stddev=0.1)


@pytest.mark.parametrize(
    ("changed", "shape"),
    [
        ({}, ReleaseShape(4, 64, 0, "sample")),
        ({"clipping": "message", "critic_batches": 2}, ReleaseShape(4, 64, 0, "message")),
        ({"dct_frequencies": 3, "batch_size": 5}, ReleaseShape(5, 9, 0, "sample")),
    ],
)
def test_the_settings_alone_decide_the_release(spec, changed, shape):
    assert both(spec, **changed)[0].release(server_round=7) == shape


def spoiled(tensors, **replaced):
    return SimpleNamespace(server_round=1, tensors=tensors | replaced, scalars={})


def test_what_no_server_sends_is_refused(spec, asked):
    client, server = both(spec, critic_batches=2)
    request = asked(server.request(1))
    client.check(request)
    good, tensors = request.tensors, dict(request.tensors)
    samples, labels = good["samples"], good["labels"]
    high, low = samples.copy(), samples.copy()
    high[0, 0, 0, 0], low[0, 0, 0, 0] = 1.001, -0.001
    wrong = [
        spoiled(tensors, samples=samples[:3]), spoiled(tensors, samples=samples.astype("f8")),
        spoiled(tensors, samples=high), spoiled(tensors, samples=low),
        spoiled(tensors, samples=samples * np.float32("nan")), spoiled(tensors, labels=labels + 3),
        spoiled(tensors, labels=labels - 3), spoiled(tensors, labels=labels.astype("f4")),
        spoiled(tensors, weights=labels), spoiled({"samples": samples, "labels": labels}),
        SimpleNamespace(server_round=1, tensors=tensors, scalars={"steps": 9}),
    ]  # fmt: skip
    for request in wrong:
        with pytest.raises(ValueError, match="must"):
            client.check(request)


def reference_update(spec, client_view, request, settings, adam):
    """Train the critic and return its gradients, every formula written out."""
    critic = build_critic(settings, spec, client_view.torch_seed("critic-weights"))
    randomness = client_view.randomness("critic-training", request.server_round)
    images, labels = client_view.dataset.images, client_view.dataset.labels
    samples_KBCHW = request.tensors.get("critic-samples", request.tensors["samples"][None])
    labels_KB = request.tensors.get("critic-labels", request.tensors["labels"][None])
    moments = {name: (0.0, 0.0) for name, _ in critic.named_parameters()}
    for step in range(settings.critic_steps):
        samples = torch.tensor(samples_KBCHW[step % len(samples_KBCHW)])
        wanted = labels_KB[step % len(labels_KB)]
        of_label = [[i for i, own in enumerate(labels) if own == label] for label in wanted]
        picks = randomness.integers([len(places) for places in of_label])
        real = torch.tensor(np.stack([images[p[k]] for p, k in zip(of_label, picks, strict=True)]))
        mix = torch.tensor(randomness.random(len(wanted), dtype=np.float32))[:, None, None, None]
        asked_labels = torch.tensor(wanted)
        between = (mix * real + (1 - mix) * samples).requires_grad_()
        (slope,) = torch.autograd.grad(
            critic(between, asked_labels).sum(), between, create_graph=True
        )
        scores = critic(real, asked_labels)
        loss = critic(samples, asked_labels).mean() - scores.mean()
        loss = loss + 10.0 * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        loss = loss + 1e-3 * (scores**2).mean()
        gradients = torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
        with torch.no_grad():
            for (name, weight), gradient in zip(critic.named_parameters(), gradients, strict=True):
                gradient = torch.zeros_like(weight) if gradient is None else gradient
                new, moments[name] = adam(weight, gradient, moments[name], step + 1, rate=1e-3)
                weight.copy_(new)
    rows = []
    for sample, label in zip(request.tensors["samples"], request.tensors["labels"], strict=True):
        one = torch.tensor(sample[None]).requires_grad_()
        (row,) = torch.autograd.grad(-critic(one, torch.tensor([label])).sum(), one)
        rows.append(row[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("changed", [{}, {"critic_batches": 2}, {"critic": "conv"}])
def test_the_update_is_that_of_a_slow_reference(spec, view, asked, adam, changed):
    client, server = both(spec, **changed)
    settings = Settings.from_table(TINY | {k.replace("_", "-"): v for k, v in changed.items()})
    request = asked(server.request(2), server_round=2)
    update = client.update(request, view())
    expected = reference_update(spec, view(), request, settings, adam)
    assert update.rows_RN.shape == (4, 64)
    assert np.linalg.norm(expected.reshape(4, 64), axis=1).min() > 1e-3
    np.testing.assert_allclose(update.rows_RN, expected.reshape(4, 64), rtol=2e-3, atol=1e-5)


def test_a_release_of_frequencies_holds_the_lowest(spec, view, asked):
    pixels = both(spec)[0].update(asked(both(spec)[1].request(1)), view()).rows_RN
    client, server = both(spec, dct_frequencies=3)
    found = client.update(asked(server.request(1)), view()).rows_RN
    expected = dctn(pixels.reshape(4, 8, 8).astype(float), axes=(1, 2), norm="ortho")[:, :3, :3]
    np.testing.assert_allclose(found, expected.reshape(4, 9), atol=1e-6)


def test_a_persistent_critic_goes_on_and_a_snapshot_begins_anew(spec, view, asked):
    for kept in ("persistent", "snapshot"):
        client, server = both(spec, critic_state=kept, warm_start_steps=1)
        first = client.update(asked(server.request(1)), view())
        second = client.update(asked(server.request(2), 2), view(state=first.state))
        other = client.update(asked(server.request(2), 2), view(state=second.state))
        forgot = client.update(asked(server.request(2), 2), view())
        steps = int(first.state["steps"][0]), int(second.state["steps"][0])
        if kept == "persistent":
            assert steps == (5 + 3, 5 + 3 + 3), "the warm start takes 5"
            assert not np.array_equal(second.rows_RN, other.rows_RN)
        else:
            assert steps == (5, 5)
            assert np.array_equal(second.rows_RN, other.rows_RN), "whatever it answered before"
            assert np.array_equal(second.rows_RN, forgot.rows_RN)
            assert np.array_equal(first.state["critic"], second.state["critic"])


def test_the_state_of_another_critic_is_given_up(spec, view, asked, caplog):
    client, server = both(spec)
    wider, _ = both(spec, critic_width=9)
    state = client.update(asked(server.request(1)), view()).state
    again = wider.update(asked(server.request(2), 2), view(state=state))
    fresh = wider.update(asked(server.request(2), 2), view())
    assert np.array_equal(again.rows_RN, fresh.rows_RN)
    assert "it begins anew" in caplog.text


def test_samples_follow_from_seed_and_round_and_ask_labels_evenly(spec):
    _, server = both(spec, batch_size=900, critic_batches=2)
    query, again = server.request(5), server.request(5)
    assert query.unit_range == {"samples", "critic-samples"}
    for name, tensor in query.tensors.items():
        assert np.array_equal(tensor, again.tensors[name])
        if "labels" not in name:
            assert (tensor.min(), tensor.max()) >= (0, 0)
            assert tensor.max() <= 1
    counts = np.bincount(query.tensors["labels"])
    assert abs(counts - 300).max() < 5 * math.sqrt(200)
    assert not np.array_equal(query.tensors["samples"], server.request(6).tensors["samples"])


def test_the_step_is_adam_on_the_mean_gradient(spec, adam):
    client, server = both(spec, ema_halflife_steps=1.0)
    settings = Settings.from_table(TINY)
    generator = build_generator(settings, spec, SEEDS.torch_seed("generator-weights")).eval()
    query, mean = server.request(1), mean_of(client.release(1))
    latents_BZ, labels_B = query.kept
    samples = generator(latents_BZ, labels_B)
    row = torch.from_numpy(mean.update_RN.reshape(samples.shape)).float()
    loss = (samples * row).sum() / 4  # the mean over the batch of each sample's own loss
    weights = list(generator.parameters())
    gradients = torch.autograd.grad(loss, weights)
    step = server.step(1, query, mean)
    averaged = server.trainer.ema_generator.parameters()
    for weight, gradient, found, ema in zip(
        weights, gradients, server.trainer.generator.parameters(), averaged, strict=True
    ):
        expected, _ = adam(weight, gradient, (0.0, 0.0), 1, rate=2e-3)
        assert torch.allclose(found, expected, atol=1e-5)
        assert torch.allclose(ema, (weight + expected) / 2, atol=1e-5), "of half life 1"
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    assert step.metrics["generator_gradient_norm"] == pytest.approx(norm, rel=1e-3)
    assert step.metrics["combined_gradient_norm"] == pytest.approx(
        np.linalg.norm(mean.update_RN, axis=1).mean(), rel=1e-5
    )


@pytest.mark.parametrize(
    "changed",
    [{}, {"generator": "resnet"}, {"dct_frequencies": 4},
     {"generator_learning_rate_end_factor": 0.1}],
)  # fmt: skip
def test_a_restored_server_goes_on_to_the_bit(spec, changed):
    client, server = both(spec, **changed)
    for server_round in (1, 2):
        server.step(server_round, server.request(server_round), mean_of(client.release(1)))
    _, other = both(spec, **changed)
    other.load_state_dict({name: t.clone() for name, t in server.state_dict().items()})
    for server_round in (3, 4):
        queries = server.request(server_round), other.request(server_round)
        assert np.array_equal(queries[0].tensors["samples"], queries[1].tensors["samples"])
        mean = mean_of(client.release(1), server_round)
        for half, query in zip((server, other), queries, strict=True):
            half.step(server_round, query, mean)
    first, second = server.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    labels_B = torch.arange(3)
    assert server.sampler()(labels_B, 1).equal(other.sampler()(labels_B, 1))
    assert server.finish() == {}


def test_a_critic_of_another_package_is_asked_instead(spec, view, asked):
    client, server = both(spec, critic="tests.plug_ins:DeadlyCritic")
    ours, _ = both(spec)
    request = asked(server.request(1))
    assert np.array_equal(client.update(request, view()).rows_RN, ours.update(request, view())[0])
    with pytest.raises(ValueError, match="has no fit, sample_gradient"):
        both(spec, critic="tests.plug_ins:Ratio")


SOLVED = {"critic": "cramer", "features": "dct", "feature-frequencies": 3, "points": 2,
          "generator-width": 4, "latent-dim": 3}  # fmt: skip


def solved(spec, **changed):
    settings = Settings.from_table(SOLVED | {k.replace("_", "-"): v for k, v in changed.items()})
    return Client(settings, spec), Server(settings, spec, SEEDS, rounds=2)


def test_the_solved_critic_remembers_nothing_and_a_trained_one_may(spec):
    assert not keeps_state(Settings())
    assert keeps_state(Settings(critic="mlp"))
    assert not keeps_state(Settings(critic="mlp", critic_state="snapshot"))


def test_a_solved_answer_is_the_mean_direction_less_the_public_one(spec, view, asked):
    client, server = solved(spec)
    request = asked(server.request(1))
    client.check(request)
    assert client.release(1) == ReleaseShape(6, 9, 3, "message")
    update = client.update(request, view())
    dataset = view().dataset
    coefficients = dctn(dataset.images[:, 0].astype(float), axes=(1, 2), norm="ortho")[:, :3, :3]
    points, public = (request.tensors[n].astype(float) for n in ("points", "public"))
    expected = np.empty((3, 2, 9))
    for label in range(3):
        mine = coefficients[dataset.labels == label].reshape(-1, 9)
        for place in range(2):
            between = points[label, place] - mine
            directions = between / np.linalg.norm(between, axis=1, keepdims=True)
            expected[label, place] = directions.mean(0) - public[label, place]
    scale = update.extra_E[0]
    assert update.extra_E == pytest.approx([scale] * 3)  # it holds all three
    found = update.rows_RN / (scale / (0.7 * math.sqrt(2)))
    assert found == pytest.approx(expected.reshape(6, 9), abs=1e-4)
    assert update.state is None


def test_a_client_without_images_has_zeros_alone(spec, asked):
    client, server = solved(spec)
    nothing = ClientDataset(("ann",), np.empty((0, 1, 8, 8), np.float32), np.empty(0, np.int64))
    update = client.update(
        asked(server.request(1)), ClientView("ann", ("ann",), lambda: nothing, SEEDS)
    )
    assert (np.abs(update.rows_RN).max(), np.abs(update.extra_E).max()) == (0, 0)
    assert (update.rows_RN.shape, update.extra_E.shape) == ((6, 9), (3,))


def test_features_of_images_are_computed_once(spec, view, asked, monkeypatch):
    client, server = solved(spec)
    first, second = asked(server.request(1)), asked(server.request(2), 2)
    client.update(first, view())
    monkeypatch.setattr(client, "features", None)
    client.update(second, view())
    other = view()
    other.dataset.images[0] += 0.1  # other images, of the same client
    with pytest.raises(TypeError):
        client.update(second, other)


def test_what_no_server_sends_to_a_solved_critic_is_refused(spec, asked):
    client, server = solved(spec)
    good = server.request(1)
    points, public = good.tensors["points"], good.tensors["public"]

    def request(scalars=good.scalars, **tensors):
        return SimpleNamespace(server_round=1, tensors=tensors, scalars=scalars)

    client.check(request(points=points, public=public))
    wrong = [
        request(points=points), request(points=points, public=public[:2]),
        request(points=points.astype("f4"), public=public), request(samples=points, public=public),
    ]  # fmt: skip
    for one in wrong:
        with pytest.raises(ValueError, match="must"):
            client.check(one)
    other = solved(spec, feature_frequencies=4)[1].request(1).scalars
    known = client.features.hash()[:12]
    with pytest.raises(ValueError, match=f"are unknown here, must be {known}"):
        client.check(request(other, points=points, public=public))


def test_a_solved_step_reads_the_field_and_fits_the_generator(spec, view, asked, monkeypatch):
    monkeypatch.setattr(adapt, "SAMPLES", 12)
    monkeypatch.setattr(adapt, "LEAST_SAMPLES", 4)
    client, server = solved(spec, fit_steps=8)
    query = server.request(1)
    update = client.update(asked(query), view())
    length = math.sqrt((update.rows_RN**2).sum() + (update.extra_E**2).sum())
    mean = Mean(update.rows_RN / length, update.extra_E / length, clients=1, noise_stddev=0.0)
    before = server.sampler()(torch.arange(3), 0)
    step = server.step(1, query, mean)
    assert all(math.isfinite(value) for value in step.metrics.values())
    (field,) = server.adaptation.fields
    scale = update.extra_E[0] / (0.7 * math.sqrt(2))
    expected = update.rows_RN.reshape(3, 2, 9) / scale + query.tensors["public"]
    assert field.values_LPE.numpy() == pytest.approx(expected, abs=1e-4)
    assert not torch.equal(server.sampler()(torch.arange(3), 0), before)
    other = solved(spec)[1]
    other.load_state_dict(server.state_dict())
    assert torch.equal(other.sampler()(torch.arange(3), 0), server.sampler()(torch.arange(3), 0))
