"""What a server that cheats can open: no sum of fewer than H honest releases, whatever it sends."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.privacy.refusals import UnsafeAggregation
from fed_gswgan.secure_aggregation.keys import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    Identity,
    agreed,
    seal,
)
from fed_gswgan.secure_aggregation.protocol import (
    KEYS_BYTES,
    SEALED_BYTES,
    Device,
    Phase,
    place_bytes,
    places_bytes,
)
from fed_gswgan.secure_aggregation.secret_sharing import SHARE_BYTES
from fed_gswgan.secure_aggregation.terms import Roster, threshold_of

ALL = frozenset(range(12))


def refused(match: str):
    return pytest.raises(UnsafeAggregation, match=match)


def run_until(cohort, phase: Phase, absent=frozenset()):
    """Let all devices, but for those absent from the masked releases on, go as far as a phase.

    Returns:
        The aggregation, and the last message of the server.
    """
    server = cohort.aggregation()
    message = server.take_keys(cohort.keys())
    if phase == Phase.KEYS:
        return server, message
    sealed = server.take_shares(cohort.shares(message))
    if phase == Phase.SHARES:
        return server, sealed
    signatures = cohort.send_masked({p: s for p, s in sealed.items() if p not in absent})
    for place, signature in signatures.items():
        masked = cohort.masked[place]
        assert server.add_masked(place, masked, masked.tobytes(), signature)
    survivors = server.survivors()
    if phase == Phase.MASKED:
        return server, survivors
    present = [p for p in range(cohort.size) if p not in absent]
    return server, server.take_signatures(cohort.sign(survivors, present))


def plain_sum(cohort, places) -> np.ndarray:
    return cohort.releases[sorted(places)].sum(0) & (2**cohort.bits - 1)


@pytest.mark.parametrize("absent", [set(), {0}, {3, 11}, {0, 4, 5, 10}])
def test_the_sum_is_that_of_the_survivors_and_all_that_can_be_opened(cohort, absent):
    server, signatures = run_until(cohort, Phase.SURVIVORS, absent)
    present = sorted(ALL - absent)
    assert cohort.opened() == []
    found = server.unmask(cohort.unmask(signatures, present))
    assert np.array_equal(found, plain_sum(cohort, present))
    assert cohort.opened() == [set(present) - set(cohort.attackers)]
    assert server.dropped == {}


def test_a_masked_release_alone_is_noise(cohort):
    run_until(cohort, Phase.MASKED)
    for place, masked in cohort.masked.items():
        assert not np.array_equal(masked, cohort.releases[place] & (2**cohort.bits - 1))
    every = np.concatenate(list(cohort.masked.values()))
    assert abs(every.mean() - 2**11) < 5 * 2**12 / np.sqrt(12 * every.size)


@pytest.mark.parametrize("between", [Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.SURVIVORS])
def test_devices_that_vanish_between_two_phases_stop_no_sum(cohort, between):
    gone = {1, 6, 7}
    server = cohort.aggregation()
    present = ALL

    def without_the_gone(phase):
        nonlocal present
        present = ALL - gone if phase >= between else ALL
        return sorted(present)

    message = server.take_keys(cohort.keys())
    sealed = server.take_shares(cohort.shares(message, without_the_gone(Phase.KEYS)))
    places = without_the_gone(Phase.SHARES)
    signatures = cohort.send_masked({p: s for p, s in sealed.items() if p in places})
    for place, signature in signatures.items():
        server.add_masked(place, cohort.masked[place], cohort.masked[place].tobytes(), signature)
    survivors = server.survivors()
    signed = server.take_signatures(cohort.sign(survivors, without_the_gone(Phase.MASKED)))
    found = server.unmask(cohort.unmask(signed, without_the_gone(Phase.SURVIVORS)))
    assert np.array_equal(found, plain_sum(cohort, cohort.masked))
    assert cohort.opened() == [set(cohort.masked) - set(cohort.attackers)]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"honest": 5}, "honest=5 must be >= min-honest=6"),
        ({"threshold": 7}, "threshold=7 must be more than half of 12 devices and 2 colluding"),
        ({"threshold": 13}, "threshold=13 must be more than half"),
        ({"honest": 11}, "cohort of 12 devices of 12 people must be >= 13 people"),
    ],
)
def test_terms_that_leave_fewer_honest_devices_are_refused(cohort, changed, match):
    with refused(match):
        cohort.devices[0].keys(cohort.terms_of(**changed))


def test_a_cohort_with_a_stranger_with_doubles_or_without_oneself_is_refused(cohort):
    device, usual = cohort.devices[0], cohort.terms.cohort
    stranger = Identity(bytes(32)).public
    for members, match in (
        (sorted([*usual, stranger]), "1 are not"),
        ([usual[0], *usual], "each device once"),
        (usual[::-1], "in the order of their keys"),
        (usual[1:], "must hold the device that is asked"),
        (usual[:7], "threshold=8 must be more than half of 7 devices"),
    ):
        with refused(match):
            device.keys(cohort.terms_of(cohort=tuple(members)))


def test_two_devices_of_one_person_count_once(cohort):
    people = dict(cohort.roster.people)
    people[cohort.identities[1].public] = people[cohort.identities[2].public]
    device = Device(cohort.identities[0], replace(cohort.roster, people=people, max_colluding=1))
    with refused(r"more than half of 12 devices and 2 colluding ones"):
        device.keys(cohort.terms_of(threshold=7))
    device.keys(cohort.terms_of(threshold=8))
    with refused("of 11 people must be >= 12 people"):
        device.keys(cohort.terms_of(honest=11))


def test_keys_that_are_forged_replayed_cut_or_out_of_order_are_refused(cohort):
    _, message = run_until(cohort, Phase.KEYS)
    parts = [message[start : start + KEYS_BYTES] for start in range(0, len(message), KEYS_BYTES)]
    attacker, state = cohort.identities[11], cohort.states[0]
    keys = parts[5][KEY_BYTES : 3 * KEY_BYTES]
    forged = attacker.sign(b"keys", cohort.terms.hash(), parts[5][:KEY_BYTES], keys)
    _, other_round = cohort.devices[5].keys(cohort.terms_of(server_round=2))
    _, other_request = cohort.devices[5].keys(cohort.terms_of(request_hash="01"))
    _, fresh = cohort.devices[0].keys(cohort.terms)
    for changed, match in (
        ({5: parts[5][:-SIGNATURE_BYTES] + forged}, "must be signed by their device"),
        ({5: other_round}, "must be signed by their device, for these terms"),
        ({5: other_request}, "must be signed by their device, for these terms"),
        ({0: fresh}, "must hold the ones that this device sent"),
        ({0: b""}, "must hold the ones that this device sent"),
        ({5: parts[6], 6: parts[5]}, "each once, in order"),
        ({5: parts[4]}, "each once, in order"),
        ({5: parts[5][1:]}, "must be 160 bytes of each device"),
        (dict.fromkeys(range(1, 6), b""), "keys of 7 devices of 7 people must be >= 8 people"),
    ):
        sent = b"".join(changed.get(place, part) for place, part in enumerate(parts))
        with refused(match):
            cohort.devices[0].shares(state, sent)


@pytest.mark.parametrize("weak", ["masking", "sealing"])
def test_a_key_that_agrees_on_a_known_secret_is_refused_before_anything_is_masked(cohort, weak):
    sent = cohort.keys()
    own, keys = sent[11][:KEY_BYTES], sent[11][KEY_BYTES : 3 * KEY_BYTES]
    zero = bytes(KEY_BYTES)
    keys = zero + keys[KEY_BYTES:] if weak == "masking" else keys[:KEY_BYTES] + zero
    sent[11] = own + keys + cohort.identities[11].sign(b"keys", cohort.terms.hash(), own, keys)
    message = cohort.aggregation().take_keys(sent)
    if weak == "sealing":
        with refused("a key of a peer cannot be agreed on"):
            cohort.shares(message, [0])
        return
    sealed = cohort.shares(message, range(11))
    state = cohort.states[0]
    parts = b"".join(place_bytes(p) + sealed[p][2 : 2 + SEALED_BYTES] for p in range(1, 11))
    context = b"sealed", state.transcript, place_bytes(11), place_bytes(0)
    key = agreed(cohort.states[11].sealing_secret, state.sealing_keys[0], *context)
    parts += place_bytes(11) + seal(key, bytes(2 * SHARE_BYTES), *context)
    with refused("a key of a peer cannot be agreed on"):
        cohort.devices[0].receive(state, parts)


def test_shares_of_peers_that_are_absent_cannot_be_made_up(cohort):
    """Old keys of absent peers count as nothing: what they sealed for this transcript is asked."""
    _, sealed = run_until(cohort, Phase.SHARES)
    parts = [sealed[0][n : n + 2 + SEALED_BYTES] for n in range(0, len(sealed[0]), 84)]
    assert len(parts) == 11
    for changed, match in (
        ({4: parts[4][:2] + bytes(SEALED_BYTES)}, "not from whom it claims to be"),
        ({4: parts[4][:2] + parts[5][2:]}, "not from whom it claims to be"),
        ({4: parts[4][:2] + sealed[1][4 * 84 + 2 : 5 * 84]}, "not from whom it claims to be"),
        ({4: parts[3]}, "ascending order"),
        ({0: place_bytes(0) + parts[0][2:]}, "must be those of peers"),
        (dict.fromkeys(range(5), b""), "shares of 7 devices of 7 people must be >= 8"),
    ):
        sent = b"".join(changed.get(n, part) for n, part in enumerate(parts))
        with refused(match):
            cohort.devices[0].receive(cohort.states[0], sent)
    enough = cohort.devices[0].receive(cohort.states[0], b"".join(parts[4:]))
    assert sorted(enough.shares) == [0, *range(5, 12)]


def test_split_views_of_who_takes_part_open_nothing(cohort):
    """Half of the devices are told of one set of peers, the others of another."""
    sent = cohort.keys()
    first = b"".join(sent[p] for p in (0, 1, 2, 3, 4, 5, 10, 11))
    second = b"".join(sent[p] for p in (4, 5, 6, 7, 8, 9, 10, 11))
    sealed = {p: cohort.devices[p].shares(cohort.states[p], first) for p in (0, 1, 2, 3, 4, 5)}
    others = {p: cohort.devices[p].shares(cohort.states[p], second) for p in (6, 7, 8, 9)}
    both = {
        p: (
            cohort.devices[p].shares(cohort.states[p], first),
            cohort.devices[p].shares(cohort.states[p], second),
        )
        for p in cohort.attackers
    }

    def for_device(receiver, view):
        made = sealed | {p: of[0] for p, of in both.items()}
        if view == "second":
            made = others | {p: of[1] for p, of in both.items()} | {p: sealed[p] for p in (4, 5)}
        found = b""
        for sender, (_, message) in sorted(made.items()):
            parts = [message[n : n + 84] for n in range(0, len(message) - SIGNATURE_BYTES, 84)]
            for part in parts:
                if sender != receiver and part[:2] == place_bytes(receiver):
                    found += place_bytes(sender) + part[2:]
        return found

    for receiver in (6, 7, 8, 9):
        with refused("shares of 6 devices of 6 people must be >= 8"):
            cohort.devices[receiver].receive(others[receiver][0], for_device(receiver, "second"))
    for place, (state, _) in sealed.items():
        cohort._keep(place, state)
    cohort.send_masked({p: for_device(p, "first") for p in sealed})
    assert cohort.opened() == []


def test_two_sets_of_peers_do_not_cancel(cohort):
    _, sealed = run_until(cohort, Phase.SHARES)

    def without(place, blob):
        parts = [blob[n : n + 84] for n in range(0, len(blob), 84)]
        return b"".join(part for part in parts if part[:2] != place_bytes(place))

    views = {p: without(11, s) if p < 5 else s for p, s in sealed.items() if p < 10}
    cohort.send_masked(views)
    for attacker in cohort.attackers:
        cohort._keep(
            attacker, cohort.devices[attacker].receive(cohort.states[attacker], sealed[attacker])
        )
    everybody = places_bytes(range(12))
    with refused("places must be of devices that took part"):
        cohort.devices[0].sign_survivors(cohort.states[0], everybody)
    small = places_bytes([*range(5), 10])
    with refused("survivors of 6 devices"):
        cohort.devices[0].sign_survivors(cohort.states[0], small)
    # Nor if all of them sign one list that both views allow, and reveal all that they would.
    survivors = places_bytes(range(10))
    cohort.sign(survivors, range(10))
    for place in range(10):
        state = cohort.states[place]
        content = b"survivors", state.transcript, survivors
        signatures = b"".join(
            place_bytes(p) + cohort.identities[p].sign(*content)
            for p in range(10)
            if cohort.states[p].transcript == state.transcript
        )
        with refused("signatures of 5 devices must be >= threshold=8"):
            cohort.devices[place].unmask(state, signatures)
    assert cohort.opened() == []


def test_survivors_are_one_list_with_oneself_and_enough_others(cohort):
    _, survivors = run_until(cohort, Phase.MASKED)
    state = cohort.states[0]
    for places, match in (
        (range(1, 12), "must hold the device that is asked"),
        (range(7), "survivors of 7 devices of 7 people must be >= 8"),
        ([0, *range(12)], "ascending order"),
        ([*range(12), 40], "of devices that took part"),
    ):
        with refused(match):
            cohort.devices[0].sign_survivors(state, places_bytes(places))
    with refused("bytes must have 2 of each place"):
        cohort.devices[0].sign_survivors(state, survivors[:-1])
    cohort.sign(survivors, [0])
    with refused("has sent its survivors in this round"):
        cohort.sign(places_bytes(range(9)), [0])


def test_one_peer_is_never_both_alive_and_dropped(cohort):
    """Under another list, or with too few signatures, nothing is revealed; and only once."""
    server, survivors = run_until(cohort, Phase.MASKED)
    signatures = server.take_signatures(cohort.sign(survivors, range(12)))
    state, size = cohort.states[0], 2 + SIGNATURE_BYTES
    parts = [signatures[n : n + size] for n in range(0, len(signatures), size)]
    other = places_bytes(range(11))
    of_other = b"".join(
        place_bytes(p) + cohort.identities[p].sign(b"survivors", state.transcript, other)
        for p in range(12)
    )
    for sent, match in (
        (of_other, "must be of the list that this device signed"),
        (b"".join(parts[:7]), "signatures of 7 devices must be >= threshold=8"),
        (b"".join([*parts[:7], parts[6]]), "ascending order"),
        (b"".join([*parts[:7], place_bytes(9) + parts[6][2:]]), "must be of the list"),
        (signatures[:-1], "bytes must have 66 of each place"),
    ):
        with refused(match):
            cohort.devices[0].unmask(state, sent)
    cohort.unmask(signatures, [0])
    with refused("has sent its unmasked in this round"):
        cohort.unmask(signatures, [0])
    assert cohort.opened() == []  # one device's shares open nothing


def test_signatures_of_those_who_did_not_survive_do_not_count(cohort):
    _, survivors = run_until(cohort, Phase.MASKED, absent={9})
    cohort.sign(survivors, [0])
    state = cohort.states[0]
    content = b"survivors", state.transcript, survivors
    signed = [
        place_bytes(p) + cohort.identities[p].sign(*content) for p in (0, 1, 2, 3, 4, 5, 6, 9)
    ]
    with refused("of devices that took part"):
        cohort.devices[0].unmask(state, b"".join(signed))


def test_each_message_is_sent_once_and_in_order(cohort):
    """A device that died between keeping its state and sending answers no more."""
    server, message = run_until(cohort, Phase.KEYS)
    device, at_keys = cohort.devices[0], cohort.states[0]
    sealed = server.take_shares(cohort.shares(message))
    at_shares = cohort.states[0]
    cohort.send_masked(sealed)
    at_masked = cohort.states[0]
    calls = {
        Phase.KEYS: lambda state: device.shares(state, message),
        Phase.SHARES: lambda state: device.receive(state, sealed[0]),
        Phase.MASKED: lambda state: device.sign_survivors(state, places_bytes(range(12))),
        Phase.SURVIVORS: lambda state: device.unmask(state, b""),
    }
    for (phase, call), state in itertools.product(calls.items(), (at_keys, at_shares, at_masked)):
        if state.phase != phase:
            with refused(f"has sent its {state.phase.name.lower()} in this round"):
                call(state)


def test_secrets_stand_in_no_representation(cohort):
    run_until(cohort, Phase.MASKED)
    state = cohort.states[0]
    shown = repr(state)
    for secret in (state.masking_secret, state.sealing_secret, state.seed, state.shares[1]):
        assert repr(secret) not in shown


def test_any_number_of_colluding_devices_may_be_believed_in(cohort):
    roster = Roster(people=cohort.roster.people, min_honest=6, max_colluding=0)
    device = Device(cohort.identities[0], roster)
    begun, _ = device.keys(cohort.terms_of(threshold=7))
    assert begun.phase == Phase.KEYS


def test_the_threshold_is_more_than_half_of_devices_and_of_those_who_collude():
    for devices in range(2, 40):
        for colluding in range(devices):
            threshold = threshold_of(devices, colluding)
            assert 2 * (threshold - 1) <= devices + colluding < 2 * threshold
