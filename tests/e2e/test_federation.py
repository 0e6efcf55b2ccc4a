"""Real processes on loopback: SuperLink, SuperNodes, guards, over TLS or plain."""

import json
import os
import signal
import sqlite3
import ssl
import stat
import sys
import time
from contextlib import closing
from typing import NamedTuple

import grpc
import numpy as np
import pytest
from safetensors.torch import load_file

from deploy.certificates import make_node_key, renew_certificate
from deploy.federation import Security, free_ports, running
from deploy.flower_commands import flower_environment, supernode_command
from deploy.keep_running import keep_running
from deploy.loopback import DEVICE, install_rosters, make_devices
from deploy.program import Program, command_of, stop_all
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.partition import load_partition, partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.folder import SOCKET, DeviceSettings, create_device, device_share
from fed_gswgan.device.sums import ROUNDS
from fed_gswgan.privacy.ledger import LEDGER, Ledger
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.settings import toml_value
from tests.e2e.chaos import SETTINGS, answered, chaos

AUTHENTICATED, OPEN, PLAIN = (
    Security(), Security(authenticated=False), Security(tls=False, authenticated=False),
)  # fmt: skip


def settings_of(devices, **changed):
    small = SETTINGS | {"max-clients": devices, "cohort-size": devices, "rounds": 3}
    return small | {name.replace("_", "-"): value for name, value in changed.items()}


def names_of(devices):
    return [f"device-{number}" for number in range(devices)]


def weights(folder):
    index = json.loads((folder / "checkpoint" / "checkpoint.json").read_text())
    return load_file(folder / "checkpoint" / index["tensors"])


def run_whole(folder, security, settings, devices=3):
    """Run to the end; return the run's folder and what each device answered."""
    make_devices(folder / "nodes", names_of(devices), settings)
    with running(folder, names_of(devices), security) as federation:
        keep_running(federation.submit, federation.run_folder, settings, federation.restart_ended)
        assert all(program.alive() for program in federation.programs())
        return federation.run_folder, answered(federation)


@pytest.mark.slow
def test_a_proxy_of_the_machine_does_not_stand_before_loopback(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    _, answers = run_whole(tmp_path, AUTHENTICATED, settings_of(3, rounds=1))
    assert answers == dict.fromkeys(names_of(3), 1)


def test_over_tls_registered_devices_train_and_a_node_that_nobody_registered_gets_no_task(
    tmp_path,
):
    settings = settings_of(2, rounds=1)
    make_devices(tmp_path / "nodes", [*names_of(2), "stranger"], settings | {"max-clients": 3})
    with running(tmp_path, names_of(2), AUTHENTICATED) as federation:
        home = tmp_path / "nodes" / "stranger"
        command = supernode_command(
            federation.relay.port,
            *free_ports(1),
            {"guard": str(home / DEVICE / SOCKET)},
            federation.certificates,
            make_node_key(home),
        )
        environment = flower_environment(home / "flwr-home")
        stranger = Program("stranger", command, environment, tmp_path, tmp_path / "stranger.log")
        stranger.start()
        keep_running(federation.submit, federation.run_folder, settings)
        assert not stranger.alive()
        assert answered(federation) == dict.fromkeys(names_of(2), 1)
        processes = [d for program in federation.programs() for d in program.descendants()]

    assert "Receiving" not in stranger.last_lines(1000)
    with Ledger(home / DEVICE) as ledger:
        assert ledger.verify() == 0
    summary = json.loads((federation.run_folder / "summary.json").read_text())
    assert (summary["runtime"], summary["clients"], summary["rounds"]) == ("flwr", 2, 1)
    assert summary["replies"]["received"] == 2
    assert summary["privacy"]["seeded_noise"] is False
    assert processes
    assert not [d for d in processes if command_of(d.process_id) == d.command]


@pytest.mark.slow
@pytest.mark.parametrize("security", [AUTHENTICATED, OPEN, PLAIN], ids=["auth", "tls", "plain"])
def test_three_devices_train_three_rounds_and_three_ledgers_say_so(tmp_path, security):
    folder, counts = run_whole(tmp_path, security, settings_of(3))

    assert counts == dict.fromkeys(names_of(3), 3)
    assert [(r["received"], r["stepped"]) for r in read_rounds(folder)] == [(3, True)] * 3


def seeded_device(nodes, name, users, source, settings):
    """A device with the shard's very numbers, so that nothing is rounded to a PNG's grays."""
    shard, folder = load_partition(source, users), nodes / name
    folder.mkdir(parents=True)
    np.savez(folder / "images.npz", images=shard.images, labels=shard.labels)
    config = Config.from_table(settings).with_noise(spec_of(source))
    limits = config.policy(spec_of(source)).to_table()
    lines = [f"{key} = {toml_value(value)}\n" for key, value in limits.items()]
    (folder / "policy.toml").write_text("".join(lines))
    device = DeviceSettings(
        name=name,
        data=str(folder / "images.npz"),
        classes=tuple(source.class_names),
        training=device_share(settings),
    )
    create_device(folder / DEVICE, device, folder / "policy.toml")


def seeded_guard(device):
    return [sys.executable, "-m", "tests.e2e.seeded_guard", str(device), "0"]


def kill_serverapp(federation):
    below = federation.superlink.descendants()
    (process_id,) = [d.process_id for d in below if "flwr-serverapp" in d.command]
    os.kill(process_id, signal.SIGKILL)


@pytest.mark.slow
def test_with_one_seed_real_devices_and_a_server_that_is_killed_give_the_generator_of_one_process(
    tmp_path, small_run
):
    """ServerApp and SuperLink die in the middle of a round; nobody is charged twice."""
    settings = settings_of(3, rounds=6, seed=0)
    config = Config.from_table(settings)
    source = open_source(config.shared)
    names = [f"client-{number:05d}" for number in range(3)]
    partitions = partitions_of(source, config.shared)
    for number, name in enumerate(names):
        seeded_device(tmp_path / "nodes", name, partitions.writers(number), source, settings)

    kills = {2: kill_serverapp, 4: lambda federation: federation.superlink.kill()}
    with running(tmp_path, names, AUTHENTICATED, seeded_guard) as federation:

        def watch():
            path = federation.run_folder / "rounds.jsonl"
            finished = len(path.read_text().splitlines()) if path.exists() else 0
            if finished in kills:
                time.sleep(3)  # into the next round
                kills.pop(finished)(federation)
            federation.restart_ended()

        keep_running(federation.submit, federation.run_folder, settings, watch)
        counts = answered(federation)

    assert not kills
    assert counts == dict.fromkeys(names, 6)
    whole = small_run("whole", **{k.replace("-", "_"): v for k, v in settings.items()})
    first, second = weights(whole), weights(federation.run_folder)
    assert all(first[name].equal(second[name]) for name in first)


MASKED = {
    "trust": "secure-aggregation", "secure-aggregation": "protocol", "honest-share": 0.6,
    "colluding-share": 0.0, "min-replies": 3, "critic": "cramer", "prior": "none",
    "features": "dct", "feature-frequencies": 4, "feature-components": 1, "points": 1,
    "fit-steps": 2, "noise-stddev": 8.0,
}  # fmt: skip


@pytest.mark.slow
def test_five_devices_under_masks_give_the_generator_of_one_process_that_sums_itself(
    tmp_path, small_run
):
    """So every sum is the plain sum of the releases, to the last bit."""
    settings = {**settings_of(5, rounds=3, seed=0), **MASKED}
    config = Config.from_table(settings)
    source = open_source(config.shared)
    partitions = partitions_of(source, config.shared)
    names = [f"client-{number:05d}" for number in range(5)]
    nodes = tmp_path / "nodes"
    for number, name in enumerate(names):
        seeded_device(nodes, name, partitions.writers(number), source, settings)
    install_rosters([nodes / name / DEVICE for name in names])
    with running(tmp_path, names, AUTHENTICATED, seeded_guard) as federation:
        keep_running(federation.submit, federation.run_folder, settings, federation.restart_ended)
        counts = answered(federation)
        summary = json.loads((federation.run_folder / "summary.json").read_text())

    assert counts == dict.fromkeys(names, 3)
    assert summary["privacy"]["secure_aggregation"] == "protocol"
    ideal = {**settings, "secure-aggregation": "ideal"}
    whole = small_run("whole", **{k.replace("-", "_"): v for k, v in ideal.items()})
    first, second = weights(whole), weights(federation.run_folder)
    assert all(first[name].equal(second[name]) for name in first)


def phase_of(device):
    """The newest round of a device that a guard is at work on, and the phase that it has sent."""
    uri = f"file:{device / ROUNDS}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as rounds:
        rows = rounds.execute("SELECT server_round, phase FROM rounds ORDER BY server_round")
        return max(rows.fetchall(), default=(0, 0))


@pytest.mark.slow
def test_a_device_that_is_killed_after_each_phase_ends_no_run_under_masks(tmp_path):
    """In round n one of five vanishes after its n-th message; the others go on without it."""
    settings = {
        **settings_of(5, rounds=6), **MASKED, "reply-timeout-seconds": 60.0, "max-epsilon": 1e6,
    }  # fmt: skip
    make_devices(tmp_path / "nodes", names_of(5), settings)
    killed = {}
    with running(tmp_path, names_of(5), AUTHENTICATED) as federation:

        def watch():
            for number, name in enumerate(names_of(5), start=1):
                device = federation.device_folder(name)
                if number not in killed and phase_of(device) >= (number, number):
                    killed[number] = phase_of(device)
                    for program in (federation.guards[name], federation.nodes[name]):
                        for process_id in (
                            program.process_id, *(d.process_id for d in program.descendants())
                        ):  # fmt: skip
                            os.kill(process_id, signal.SIGKILL)
            federation.restart_ended()

        keep_running(federation.submit, federation.run_folder, settings, watch)
        counts = answered(federation)

    assert set(killed) == {1, 2, 3, 4, 5}
    rounds = read_rounds(federation.run_folder)
    assert rounds[-1]["server_round"] == 6
    assert all(line["received"] >= 3 for line in rounds if line["stepped"])
    assert sum(line["stepped"] for line in rounds) >= 4
    assert all(count <= 6 for count in counts.values())


@pytest.mark.slow
def test_a_supernode_that_is_killed_in_the_middle_of_a_reply_costs_its_device_that_reply(tmp_path):
    """Its guard has reserved and is at work: the charge stays, the others go on without it."""
    settings = settings_of(3, rounds=4, critic_steps=1000, reply_timeout_seconds=120.0)
    make_devices(tmp_path / "nodes", names_of(3), settings)
    killed = []
    with running(tmp_path, names_of(3), AUTHENTICATED) as federation:
        device = federation.device_folder("device-0")

        def watch():
            finished = len(read_rounds(federation.run_folder))
            if not killed and finished and len(lines_of(device)) > finished:
                killed.append((finished + 1, lines_of(device)))
                node = federation.nodes["device-0"]
                for process_id in (node.process_id, *(d.process_id for d in node.descendants())):
                    os.kill(process_id, signal.SIGKILL)
            federation.restart_ended()

        keep_running(federation.submit, federation.run_folder, settings, watch)
        counts = answered(federation)
        after = lines_of(device)

    ((server_round, before),) = killed
    lines = read_rounds(federation.run_folder)
    assert [line["server_round"] for line in lines] == [1, 2, 3, 4]
    assert all(line["stepped"] for line in lines)
    assert lines[server_round - 1]["received"] == 2
    assert after[: len(before)] == before
    assert len({line.server_round for line in after}) == len(after) == counts["device-0"]
    assert (counts["device-1"], counts["device-2"]) == (4, 4)


class Row(NamedTuple):
    server_round: int
    hash: str


def lines_of(device):
    """The lines of a ledger that a guard is at work on, read past its lock."""
    uri = f"file:{device / LEDGER}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as ledger:
        rows = ledger.execute("SELECT server_round, hash FROM lines ORDER BY number")
        return [Row(*row) for row in rows]


@pytest.mark.slow
def test_a_network_that_drops_in_the_middle_ends_no_run(tmp_path):
    settings = settings_of(3, rounds=4)
    make_devices(tmp_path / "nodes", names_of(3), settings)
    cut_at = []
    with running(tmp_path, names_of(3), AUTHENTICATED) as federation:

        def watch():
            path = federation.run_folder / "rounds.jsonl"
            if not cut_at and path.exists() and path.read_text():
                federation.relay.cut()
                cut_at.append(time.monotonic())
            if cut_at and time.monotonic() > cut_at[0] + 15:
                federation.relay.mend()
            federation.restart_ended()

        keep_running(federation.submit, federation.run_folder, settings, watch)
        counts = answered(federation)

    assert cut_at
    assert read_rounds(federation.run_folder)[-1]["server_round"] == 4
    assert all(1 <= count <= 4 for count in counts.values())


@pytest.mark.slow
def test_a_certificate_that_is_renewed_in_the_middle_ends_no_run(tmp_path):
    """Devices keep the authority that they have, and accept the server's next certificate."""
    settings = settings_of(3, rounds=4)
    make_devices(tmp_path / "nodes", names_of(3), settings)
    with running(tmp_path, names_of(3), AUTHENTICATED) as federation:
        files = federation.certificates
        kept, replaced, shown = files.authority.read_bytes(), files.certificate.read_bytes(), []

        def watch():
            if not shown and read_rounds(federation.run_folder):
                renew_certificate(files.folder)
                stop_all([federation.superlink])  # as systemd does, with all that it started
                federation.start_superlink()
                shown.append(ssl.get_server_certificate(("127.0.0.1", federation.relay.port)))
            federation.restart_ended()

        keep_running(federation.submit, federation.run_folder, settings, watch)
        counts = answered(federation)

    assert files.authority.read_bytes() == kept
    assert shown == [files.certificate.read_text()] != [replaced.decode()]
    assert read_rounds(federation.run_folder)[-1]["server_round"] == 4
    assert counts == dict.fromkeys(names_of(3), 4)


@pytest.mark.slow
def test_a_large_body_of_a_peer_that_nobody_registered_is_not_read(tmp_path):
    body = bytes(64 * 2**20)
    with running(tmp_path, [], AUTHENTICATED) as federation:
        trust = grpc.ssl_channel_credentials(federation.certificates.authority.read_bytes())
        place, sizes = f"127.0.0.1:{federation.relay.port}", [("grpc.max_send_message_length", -1)]
        with grpc.secure_channel(place, trust, sizes) as channel:
            call = channel.unary_unary("/flwr.proto.Fleet/PushObject")
            with pytest.raises(grpc.RpcError) as refused:
                call(body, timeout=120, wait_for_ready=True)
        assert federation.superlink.alive()
        files = [path for path in (tmp_path / "superlink").rglob("*") if path.is_file()]
        modes = {stat.S_IMODE(path.stat().st_mode) for path in files if "state.db" in path.name}

    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert federation.relay.uplink_bytes < len(body) / 8
    assert modes == {0o600}


@pytest.mark.slow
def test_at_the_default_batch_the_wire_carries_little_more_than_the_payload(tmp_path):
    """Once the bundle is there: bytes from the end of the second round to that of the tenth."""
    settings = settings_of(3, rounds=10, batch_size=32)
    make_devices(tmp_path / "nodes", names_of(3), settings)
    counted = {}
    with running(tmp_path, names_of(3), AUTHENTICATED) as federation:

        def watch():
            path = federation.run_folder / "rounds.jsonl"
            if path.exists():
                finished = len(path.read_text().splitlines())
                counted.setdefault(finished, relay_bytes(federation.relay))

        keep_running(federation.submit, federation.run_folder, settings, watch)
        counted.setdefault(10, relay_bytes(federation.relay))

    rounds = read_rounds(federation.run_folder)[2:]
    payload = sum(line["uplink_bytes"] + line["downlink_bytes"] for line in rounds)
    assert counted[10] - counted[2] <= 1.1 * payload


def relay_bytes(relay):
    return relay.uplink_bytes + relay.downlink_bytes


@pytest.mark.slow
def test_twenty_random_kills_lose_no_ledger_entry_and_no_budget(tmp_path):
    killed = chaos(tmp_path, kills=20, seed=0, nodes=3, security=AUTHENTICATED)

    assert killed.total() == 20
