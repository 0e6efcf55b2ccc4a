import json

from fed_gswgan.cli import main
from tests.fed_gswgan.device.served_device import POLICY, write_digits


def test_a_device_is_made_and_checked(tmp_path, capsys):
    data, policy = write_digits(tmp_path / "digits.npz"), tmp_path / "policy.toml"
    policy.write_text(POLICY)
    folder = str(tmp_path / "device")
    given = ["--client-id", "alice", "--data", str(data), "--policy", str(policy), "--json"]
    settings = ["--settings", "simulations/configs/demo.toml"]
    assert main(["device", "init", folder, *given, *settings]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["socket"] == f"{folder}/guard.sock"
    assert "critic-width = 256" in (tmp_path / "device" / "device.toml").read_text()
    assert (tmp_path / "device" / "policy.toml").read_text() == POLICY

    assert main(["device", "check", folder]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * 10

    data.unlink()
    assert main(["device", "check", folder]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "ok" not in line]
    assert line.startswith("FAIL  data: ")
    assert main(["device", "check", folder, "--json"]) == 1
    assert [c["name"] for c in json.loads(capsys.readouterr().out)["checks"] if not c["ok"]] == [
        "data"
    ]

    assert main(["device", "init", folder, *given]) == 2
    assert "there is a device already" in capsys.readouterr().err


def test_a_server_is_called_only_with_what_it_is_known_by(tmp_path, capsys):
    command = ["device", "check", str(tmp_path), "--server", "server.example:9092"]
    assert main(command) == 2
    assert "server=server.example:9092 needs --root-certificates" in capsys.readouterr().err
