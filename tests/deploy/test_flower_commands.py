"""What processes of a federation on one machine are started with."""

import pytest

from deploy.flower_commands import flower_environment, output_of


@pytest.mark.parametrize(("before", "first"), [({}, "127.0.0.1"), ({"no_proxy": "a.b"}, "a.b")])
def test_no_proxy_stands_before_loopback(tmp_path, monkeypatch, before, first):
    """gRPC reads no_proxy, others NO_PROXY; what was exempt stays so."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    made = flower_environment(tmp_path)
    assert made["http_proxy"] == "http://127.0.0.1:9"
    for name in ("no_proxy", "NO_PROXY"):
        exempt = made[name].split(",")
        assert exempt[0] == first
        assert {"127.0.0.1", "localhost"} <= set(exempt)


def test_a_command_that_failed_is_named_as_a_shell_takes_it():
    with pytest.raises(RuntimeError, match=r"^ls '/no such file': "):
        output_of(["ls", "/no such file"])
