from fed_gswgan.config import Config
from simulations.client_compute import participation_flops

SHARED = {
    "critic": "mlp", "critic-width": 16, "critic-steps": 3, "batch-size": 8, "generator": "slim",
    "generator-width": 4, "latent-dim": 6,
}  # fmt: skip
P, D, L, B = 784, 16, 10, 8


def layer(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def critic_step() -> int:
    scores = layer(2 * B, P, D) + layer(2 * B, D, D) + layer(2 * B, D, D)  # and back to one layer
    penalty = layer(B, P, D) + layer(B, D, D) + layer(B, D, D) + layer(B, D, P)
    tangents = layer(B, P, D) + layer(B, D, D)
    weights = layer(3 * B, D, P) + layer(3 * B, D, D) + layer(B, L, D)
    return scores + penalty + tangents + weights


def test_a_participation_of_gs_wgan_is_its_critic_steps():
    assert participation_flops(Config.from_run_config(SHARED), L) == 3 * critic_step()


def test_a_participation_of_fedavg_gan_draws_its_own_samples_too():
    settings = {"algorithm": "fedavg-gan", "clipping": "message"}
    config = Config.from_run_config(SHARED | settings)
    generator = layer(1, 12, 8 * 49) + 9 * (
        layer(14 * 14, 8, 4) + layer(28 * 28, 4, 2) + layer(28 * 28, 2, 1)
    )
    assert participation_flops(config, L) == 3 * (critic_step() + B * generator)


def test_twice_the_steps_are_twice_the_operations():
    once = participation_flops(Config.from_run_config(SHARED), L)
    twice = participation_flops(Config.from_run_config(SHARED | {"critic-steps": 6}), L)
    assert twice - once == 3 * critic_step()
