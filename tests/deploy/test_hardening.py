"""What every unit and every container is kept from."""

from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
KEPT = {
    "UMask": "0077", "LimitCORE": "0", "SystemCallFilter": "@system-service",
    "SystemCallArchitectures": "native", "NoNewPrivileges": "yes", "ProtectSystem": "strict",
    "PrivateTmp": "yes", "PrivateDevices": "yes", "RestrictSUIDSGID": "yes",
}  # fmt: skip


def keys_of(unit):
    """Return the last value of each key of a unit's [Service], lines that go on joined."""
    text = unit.read_text().replace("\\\n", " ")
    service = text.split("[Service]\n")[1].split("\n[")[0]
    lines = [line for line in service.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", maxsplit=1) for line in lines)


def test_there_is_a_unit_for_each_process():
    names = [unit.stem.removeprefix("fed-gswgan-") for unit in UNITS]
    assert names == ["certificates", "guard", "run", "superlink", "supernode"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_limited_in_memory_calls_and_files(unit):
    keys = keys_of(unit)
    assert {key: keys.get(key) for key in KEPT} == KEPT
    assert keys["MemoryMax"][-1] in "MG"
    assert int(keys["TasksMax"]) <= 2048
    assert set(keys["CapabilityBoundingSet"].split()) <= {
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER",
    }  # fmt: skip
    if unit.stem != "fed-gswgan-certificates":  # which renews, as root, and is gone
        assert keys["User"].startswith("fed-gswgan-")
        assert keys["CapabilityBoundingSet"] == ""
        assert keys["StateDirectoryMode"] == "0700"


def test_the_guard_has_no_network_and_its_group_reaches_the_socket_alone():
    guard, relay = (keys_of(DEPLOY / "systemd" / f"fed-gswgan-{n}.service")
                    for n in ("guard", "supernode"))  # fmt: skip
    assert (guard["PrivateNetwork"], guard["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")
    assert (guard["Group"], guard["RuntimeDirectoryMode"]) == (relay["Group"], "0710")
    assert f'guard="/run/{guard["RuntimeDirectory"]}/guard.sock"' in relay["ExecStart"]
    assert guard["User"] != relay["User"]


def test_the_control_port_is_loopbacks_and_strangers_bodies_are_not_read():
    started = keys_of(DEPLOY / "systemd" / "fed-gswgan-superlink.service")["ExecStart"].split()
    assert started[started.index("--host") + 1] == "127.0.0.1"
    assert "fed_gswgan.wire.superlink" in started
    assert "--enable-supernode-auth" in started


@pytest.mark.parametrize("name", ["superlink", "run", "guard", "supernode"])
def test_a_container_is_limited_in_memory_calls_and_files(name):
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"superlink", "run", "guard", "supernode"}
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]  # and no other seccomp profile
    assert service["ulimits"] == {"core": 0}
    assert int(service["mem_limit"].removesuffix("g")) <= 8
    assert service["pids_limit"] <= 2048
    assert service["user"].split(":")[0] in ("1000", "1001", "1002")
    assert not service.keys() & {"privileged", "cap_add"}
    ports = service.get("ports", [])
    assert ports == (["9092:9092"] if name == "superlink" else [])
    if name == "superlink":
        words = service["command"].split()
        assert words[words.index("--host") + 1] == "127.0.0.1"
        assert "fed_gswgan.wire.superlink" in words
