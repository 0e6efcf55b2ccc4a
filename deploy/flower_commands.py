"""Command lines of Flower 1.39 for a SuperLink, its SuperNodes and ``flwr``, and the guard's.

The app that they submit is a copy: a checkout may lie in a folder whose name Flower refuses.
"""

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.certificates import Certificates
from fed_gswgan.device.shards import SIMULATION_FOLDER
from fed_gswgan.settings import Value, toml_value

ROOT = Path(__file__).parents[1]
NAME = "fed-gswgan"  # Flower refuses a name with an underscore
PACKAGES = ("fed_gswgan", "server", "client")
FILES = ("pyproject.toml", "README.md", "LICENSE")


def copy_app(parent: Path) -> Path:
    """Copy the sources into ``parent``, in place of an older copy, and return the app's folder."""
    app = parent / NAME
    shutil.rmtree(app, ignore_errors=True)
    app.mkdir(parents=True)
    for package in PACKAGES:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, app / package, ignore=without)
    for name in FILES:
        shutil.copy(ROOT / name, app / name)
    return app


BIN = Path(sys.executable).parent
CONNECTION = "here"
SUPERLINK = (sys.executable, "-m", "fed_gswgan.wire.superlink")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SUPERNODE = (sys.executable, "-m", "fed_gswgan.wire.supernode")
FLOWERS_SUPERNODE = (str(BIN / "flower-supernode"),)


def superlink_command(
    fleet_port: int,
    control_port: int,
    database: Path,
    certificates: Certificates | None,
    authenticated: bool,
) -> list[str]:
    """Return the command of the server: devices reach the fleet port, ``flwr`` the control port.

    Args:
        fleet_port: gRPC, on loopback.
        control_port: HTTP, on loopback.
        database: file of its state, which a restart goes on from.
        certificates: for TLS on both ports; None: neither is encrypted.
        authenticated: only nodes whose public key was registered may connect; needs TLS.
    """
    command = [*SUPERLINK, "--fleet-api-address", f"127.0.0.1:{fleet_port}"]
    command += ["--host", "127.0.0.1", "--port", str(control_port)]
    command += ["--database", str(database), "--disable-runtime-dependency-installation"]
    if certificates is None:
        return [*command, "--insecure"]
    command += ["--ssl-ca-certfile", str(certificates.authority)]
    command += ["--ssl-certfile", str(certificates.certificate)]
    command += ["--ssl-keyfile", str(certificates.key)]
    return [*command, "--enable-supernode-auth"] if authenticated else command


def supernode_command(
    superlink_port: int,
    runtime_port: int,
    node_config: Mapping[str, Value],
    certificates: Certificates | None,
    key: Path | None,
    program: Sequence[str] = SUPERNODE,
) -> list[str]:
    """Return the command of a device's SuperNode.

    Args:
        superlink_port: of the server, or of a relay before it, on loopback.
        runtime_port: where its own client app reaches it, on loopback.
        node_config: what the client app is told of this device.
        certificates: whose authority it trusts; None: without TLS.
        key: its private key; None: it connects as a node that nobody knows.
        program: ours, or Flower's own.
    """
    command = [*program, "--superlink", f"127.0.0.1:{superlink_port}"]
    command += ["--host", "127.0.0.1", "--port", str(runtime_port)]
    command += ["--node-config", config_words(node_config)]
    if certificates is None:
        return [*command, "--insecure"]
    command += ["--root-certificates", str(certificates.authority)]
    return [*command, "--auth-supernode-private-key", str(key)] if key else command


def guard_command(device: Path) -> list[str]:
    """Return the command of a device's guard."""
    return [sys.executable, "-m", "fed_gswgan.cli", "device", "serve", str(device)]


def register_command(public_key: Path) -> list[str]:
    """Return the command that lets the owner of this key connect."""
    return [str(BIN / "flwr"), "supernode", "register", str(public_key), CONNECTION]


def run_command(app: Path, run_config: Mapping[str, Value]) -> list[str]:
    """Return the command that submits a run of the app and returns at once."""
    command = [str(BIN / "flwr"), "run", str(app), CONNECTION]
    return [*command, "--run-config", config_words(run_config)]


def stop_command(run_id: str) -> list[str]:
    """Return the command that ends a run."""
    return [str(BIN / "flwr"), "stop", run_id, CONNECTION]


def config_words(config: Mapping[str, Value]) -> str:
    """Return settings as Flower's command lines take them: ``key=value``, TOML values, blanks."""
    return " ".join(f"{key}={toml_value(value)}" for key, value in config.items())


def write_connection(flwr_home: Path, port: int, certificates: Certificates | None) -> None:
    """Tell ``flwr`` where the SuperLink is and whom to trust."""
    flwr_home.mkdir(parents=True, exist_ok=True)
    trust = (
        f"root-certificates = {toml_value(str(certificates.authority))}"
        if certificates
        else "insecure = true"
    )
    (flwr_home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\n{trust}\n'
    )


def flower_environment(flwr_home: Path) -> dict[str, str]:
    """Return the environment of one machine's Flower processes: this one's, its own FLWR_HOME.

    Flower starts its own helpers by name, so they must be found first in PATH. Devices are never
    simulated, whatever this process does. No proxy of this machine stands before loopback.
    """
    named = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    direct = ",".join([*filter(None, dict.fromkeys(named)), *LOOPBACK])
    return {
        **{name: value for name, value in os.environ.items() if name != SIMULATION_FOLDER},
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "FLWR_HOME": str(flwr_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }


def output_of(command: list[str], **options: Any) -> str:
    """Run a command, with options of ``subprocess.run``, and return what it printed.

    Raises:
        RuntimeError: it failed; with all that it said.
        subprocess.TimeoutExpired: it took longer than ``timeout``.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    output: str = done.stdout
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {output}{done.stderr}")
    return output


logger = logging.getLogger(__name__)

STARTED = re.compile(r"started run (\d+)")


class Submission:
    """Submits with ``flwr``.

    Args:
        flwr: runs a command line and returns its output; RuntimeError if it fails.
    """

    def __init__(self, flwr: Callable[[list[str]], str]) -> None:
        self._flwr = flwr
        self._run_id: str | None = None

    def submit(self, app: Path, run_config: Mapping[str, Value]) -> None:
        """Send the app with these settings; its ServerApp starts a little later."""
        if self._run_id is not None:
            run_id, self._run_id = self._run_id, None
            try:
                self._flwr(stop_command(run_id))
            except RuntimeError:
                logger.debug("run %s had ended", run_id)
        found = STARTED.search(self._flwr(run_command(app, run_config)))
        self._run_id = found.group(1) if found else None
