from pathlib import Path

from fed_gswgan.device.device_settings import read_settings

from deploy.chaos import SETTINGS
from deploy.devices import DEVICE, IMAGES, make_devices


def test_devices_are_made_below_a_relative_path_and_made_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = SETTINGS | {"max-clients": 2}
    make_devices(Path("nodes"), ["a", "b"], settings)

    for name in ("a", "b"):
        home = tmp_path / "nodes" / name
        assert read_settings(home / DEVICE / "device.toml").data == str(home / IMAGES)
        assert len(list((home / IMAGES).glob("*/*.png"))) > 0
    ledger = tmp_path / "nodes" / "a" / DEVICE / "ledger.jsonl"
    before = ledger.read_bytes()
    make_devices(Path("nodes"), ["a", "b"], settings)
    assert ledger.read_bytes() == before
