"""Why Flower's own secure aggregation is not used: what a server that cheats opens under it.

Its client mod (SecAgg+, flwr 1.39) reveals both kinds of share of a peer that the server says is
alive and has dropped out. A device of this package refuses the same server.
"""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

from fed_gswgan.privacy.refusals import UnsafeAggregation
from fed_gswgan.secure_aggregation.protocol import Phase, place_bytes, places_bytes
from tests.fed_gswgan.secure_aggregation.test_protocol import run_until

pytestmark = pytest.mark.usefixtures("task_identity")
DEVICES, THRESHOLD, MODULUS, LEVELS, CLIP = range(1, 6), 3, 2**24, 2**16, 1.0
VICTIM, NUMBERS = 1, 12


class FlowersDevice:
    """A ClientApp behind Flower's mod, whose model is one vector."""

    def __init__(self, node_id, vector):
        self.node_id, self.vector = node_id, vector
        self.context = Context(
            run_id=1, node_id=node_id, node_config={}, state=RecordDict(), run_config={}
        )

    def asked(self, stage, **configs):
        """Return what the mod answers a server's message with."""
        record = ConfigRecord({Key.STAGE: stage, **configs})
        content = RecordDict({RECORD_KEY_CONFIGS: record})
        message = Message(content, dst_node_id=self.node_id, message_type="train")
        return secaggplus_mod(message, self.context, self._fit).content[RECORD_KEY_CONFIGS]

    def _fit(self, message, context):
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.vector]), 1, {})
        return Message(fitres_to_recorddict(result, keep_input=True), reply_to=message)


def flowers_devices():
    rng = np.random.default_rng(0)
    return {n: FlowersDevice(n, rng.uniform(-CLIP, CLIP, NUMBERS)) for n in DEVICES}


def masked_by_flower(devices):
    """Run the first three stages as an honest server; return all keys, and the victim's vector."""
    setting = {
        Key.SAMPLE_NUMBER: len(devices), Key.SHARE_NUMBER: len(devices),
        Key.THRESHOLD: THRESHOLD, Key.CLIPPING_RANGE: CLIP, Key.TARGET_RANGE: LEVELS,
        Key.MOD_RANGE: MODULUS, Key.MAX_WEIGHT: 1.0,
    }  # fmt: skip
    found = {n: device.asked(Stage.SETUP, **setting) for n, device in devices.items()}
    keys = {str(n): [one[Key.PUBLIC_KEY_1], one[Key.PUBLIC_KEY_2]] for n, one in found.items()}
    sealed = {n: device.asked(Stage.SHARE_KEYS, **keys) for n, device in devices.items()}
    masked = {}
    for n, device in devices.items():
        sources = [m for m in devices if m != n]
        texts = [
            sealed[m][Key.CIPHERTEXT_LIST][sealed[m][Key.DESTINATION_LIST].index(n)]
            for m in sources
        ]
        masked[n] = device.asked(
            Stage.COLLECT_MASKED_VECTORS,
            **{Key.CIPHERTEXT_LIST: texts, Key.SOURCE_LIST: sources},
        )
    return keys, masked[VICTIM][Key.MASKED_PARAMETERS]


def test_flowers_mod_gives_one_device_s_vector_to_a_server_that_calls_it_alive_and_dropped():
    devices = flowers_devices()
    keys, masked = masked_by_flower(devices)
    lists = {Key.ACTIVE_NODE_ID_LIST: list(DEVICES), Key.DEAD_NODE_ID_LIST: [VICTIM]}
    seeds, secrets = [], []
    for device in devices.values():
        told = device.asked(Stage.UNMASK, **lists)
        assert told[Key.NODE_ID_LIST] == [*DEVICES, VICTIM]
        seeds.append(told[Key.SHARE_LIST][VICTIM - 1])
        secrets.append(told[Key.SHARE_LIST][-1])

    factor, vector = [bytes_to_ndarray(blob) for blob in masked]
    shapes = [factor.shape, vector.shape]
    masks = [pseudo_rand_gen(combine_shares(seeds[:THRESHOLD]), MODULUS, shapes)]
    secret = bytes_to_private_key(combine_shares(secrets[:THRESHOLD]))
    for peer in DEVICES:
        if peer != VICTIM:  # the victim's id is the smallest: it subtracted each
            shared = generate_shared_key(secret, bytes_to_public_key(keys[str(peer)][0]))
            masks.append([-of for of in pseudo_rand_gen(shared, MODULUS, shapes)])
    opened = (vector - sum(mask[1] for mask in masks)) % MODULUS
    found = opened / LEVELS * 2 * CLIP - CLIP
    assert np.abs(found - devices[VICTIM].vector).max() <= 2 * CLIP / LEVELS


def test_here_the_same_server_is_told_nothing(cohort):
    """It asks with lists in which one peer has dropped out, after all signed that it is alive."""
    server, survivors = run_until(cohort, Phase.MASKED)
    signatures = server.take_signatures(cohort.sign(survivors, range(12)))
    alive = places_bytes(range(12))
    without_victim = places_bytes(range(1, 12))
    assert survivors == alive
    for place in range(1, 12):
        state = cohort.states[place]
        with pytest.raises(UnsafeAggregation, match="has sent its survivors in this round"):
            cohort.devices[place].sign_survivors(state, without_victim)
        forged = [
            place_bytes(peer) + identity.sign(b"survivors", state.transcript, without_victim)
            for peer, identity in enumerate(cohort.identities)
        ]
        with pytest.raises(UnsafeAggregation, match="must be of the list that this device signed"):
            cohort.devices[place].unmask(state, b"".join(forged[1:]))
    cohort.unmask(signatures, range(12))
    (opened,) = cohort.opened()
    assert len(opened) == 12 - cohort.colluding, "the sum of all, and nothing less"
