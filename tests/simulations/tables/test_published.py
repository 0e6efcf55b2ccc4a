from simulations.tables.published import published_bytes


def test_a_participation_sends_both_published_networks_down_and_the_critic_up():
    sent = published_bytes()
    assert sent.uplink == 4 * 6_556_865
    assert sent.downlink - sent.uplink == 4 * 13_285_217  # the published 13.3 million
