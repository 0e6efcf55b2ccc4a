from fed_gswgan.comparison.published_sizes import (
    published_bytes,
    published_critic_parameters,
    published_generator_parameters,
)


def test_the_sizes_are_the_published_ones():
    assert published_critic_parameters() == 6_556_865
    assert published_generator_parameters(latent_dim=10) == 13_164_385
    assert round(published_generator_parameters() / 1e6, 1) == 13.3


def test_a_participation_sends_both_networks_down_and_the_critic_up():
    sent = published_bytes()
    assert sent.uplink == 4 * published_critic_parameters()
    assert sent.downlink - sent.uplink == 4 * published_generator_parameters()
