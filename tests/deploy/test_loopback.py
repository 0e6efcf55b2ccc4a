from pathlib import Path

from deploy.loopback import DEVICE, IMAGES, make_devices
from fed_gswgan.device.doctor import check_device
from fed_gswgan.device.folder import read_settings
from fed_gswgan.privacy.ledger import LEDGER
from tests.e2e.chaos import SETTINGS


def test_devices_are_made_below_a_relative_path_and_made_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = SETTINGS | {"max-clients": 2}
    make_devices(Path("nodes"), ["a", "b"], settings)

    for name in ("a", "b"):
        home = tmp_path / "nodes" / name
        assert read_settings(home / DEVICE / "device.toml").data == str(home / IMAGES)
        assert len(list((home / IMAGES).glob("*/*.png"))) > 0
    ledger = tmp_path / "nodes" / "a" / DEVICE / LEDGER
    before = ledger.read_bytes()
    make_devices(Path("nodes"), ["a", "b"], settings)
    assert ledger.read_bytes() == before
    (tmp_path / "nodes" / "a" / IMAGES).chmod(0o700)
    found = {finding.name: finding.said for finding in check_device(ledger.parent, None)}
    assert {name: said for name, said in found.items() if said} == {}
