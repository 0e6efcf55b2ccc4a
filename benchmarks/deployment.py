"""Seconds a round of a real deployment on loopback: ours, and Flower's own floor beside it.

Each over TLS with node authentication, on a SuperLink of its own, one after the other. The floor is
a no-op app that uses Flower's ``send_and_receive``, on Flower's SuperNodes. Ours trains small
critics; what that takes by itself is measured in one process and printed too. Then a federation of
one device, which works for 20 s a participation: its round over that work. One, for several would
share the cores of this machine, and devices do not.

Usage: python -m benchmarks.deployment [--nodes 2] [--rounds 10] [--repeats 2]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.federation import Federation, Security, running
from deploy.flower_commands import FLOWERS_SUPERNODE
from deploy.keep_running import keep_running
from deploy.loopback import make_devices
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.settings import Value, toml_value

NO_OP = Path(__file__).with_name("no-op")
WARM_UP_ROUNDS = 1  # in which the bundle is fetched
PATIENCE_SECONDS = 600.0
SETTINGS: dict[str, Value] = {
    "classes": "digits", "batch-size": 32, "critic": "mlp", "critic-width": 16, "critic-steps": 2,
    "generator-width": 8, "evaluation-samples": 0, "samples-every": 1000, "max-epsilon": 1e6,
}  # fmt: skip
LONG_WORK_SECONDS = 20.0  # of a participation
LONG_ROUNDS = 4
LONG_SETTINGS = SETTINGS | {"critic-width": 256}
PROBE_STEPS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    settings = SETTINGS | {
        "max-clients": options.nodes, "cohort-size": options.nodes, "rounds": options.rounds,
    }  # fmt: skip
    names = [f"device-{number}" for number in range(options.nodes)]
    found: dict[str, list[float]] = {"ours": [], "waiting": [], "floor": []}
    with tempfile.TemporaryDirectory(prefix="deployment-") as state:
        folder = Path(state)
        for home in (folder / "ours", folder / "floor"):
            make_devices(home / "nodes", names, settings)
        with running(folder / "ours", names, Security()) as ours:
            for repeat in range(options.repeats):
                rounds = our_rounds(ours, settings, f"run-{repeat}")
                found["ours"] += [line["round_seconds"] for line in rounds]
                found["waiting"] += [line["waited_seconds"] for line in rounds]
        with running(folder / "floor", names, Security(), supernode=FLOWERS_SUPERNODE) as floor:
            for repeat in range(options.repeats):
                found["floor"] += floor_rounds(floor, options.nodes, options.rounds, repeat)
        work = work_seconds(folder / "alone", settings)
        print_table(found, work)
        print_long_work(folder)


def print_long_work(folder: Path) -> None:
    """Print a round's time over the work in it, of one device."""
    names = ["device-0"]
    settings = LONG_SETTINGS | {"max-clients": 1, "cohort-size": 1, "rounds": 2}
    probe = settings | {"critic-steps": PROBE_STEPS}
    step = work_seconds(folder / "probe", probe) / PROBE_STEPS
    settings["critic-steps"] = round(1.05 * LONG_WORK_SECONDS / step)
    work = work_seconds(folder / "long-alone", settings)
    settings["rounds"] = WARM_UP_ROUNDS + LONG_ROUNDS
    make_devices(folder / "long" / "nodes", names, settings)
    with running(folder / "long", names, Security()) as federation:
        rounds = our_rounds(federation, settings, "run")
    ratios = [line["round_seconds"] / work for line in rounds]
    print(
        f"\n{work:.1f} s of work a participation: a round takes {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) times as long (goal: <= 1.2)"
    )


def our_rounds(
    federation: Federation, settings: dict[str, Value], name: str
) -> list[dict[str, float]]:
    folder = federation.folder / name
    keep_running(federation.submit, folder, settings)
    return read_rounds(folder)[WARM_UP_ROUNDS:]


def floor_rounds(federation: Federation, nodes: int, rounds: int, repeat: int) -> list[float]:
    output = federation.folder / f"floor-{repeat}.json"
    federation.submit({"nodes": nodes, "rounds": rounds, "output": str(output)}, NO_OP)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not output.exists() or not output.read_text():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the no-op app did not end: {federation.superlink.last_lines()}")
        time.sleep(0.2)
    return list(json.loads(output.read_text())[WARM_UP_ROUNDS:])


def work_seconds(folder: Path, settings: dict[str, Value]) -> float:
    """Median seconds of the same rounds in one process: all devices' work, one after the other."""
    command = [sys.executable, "-m", "simulations.run", "--runtime", "in-process", "--workers", "1"]
    for key, value in settings.items():
        command += ["--set", f"{key}={toml_value(value)}"]
    subprocess.run([*command, "--output", str(folder)], check=True, capture_output=True)
    rounds = read_rounds(folder)[WARM_UP_ROUNDS:]
    return float(statistics.median(line["round_seconds"] for line in rounds))


def print_table(found: dict[str, list[float]], work: float) -> None:
    said = {
        "ours": "our round",
        "waiting": "  of it, the server waits",
        "floor": "Flower's own, no-op app",
    }
    print(f"{'seconds a round':<28}{'median':>8}{'least':>8}{'most':>8}{'rounds':>8}")
    for name, seconds in found.items():
        print(
            f"{said[name]:<28}{statistics.median(seconds):>8.2f}{min(seconds):>8.2f}"
            f"{max(seconds):>8.2f}{len(seconds):>8}"
        )
    print(f"{'the work alone, in process':<28}{work:>8.2f}")
    overhead, floor = statistics.median(found["ours"]) - work, statistics.median(found["floor"])
    print(
        f"overhead {overhead:.2f} s a round, {overhead / floor:.2f} of Flower's floor (goal: <= 1)"
    )


if __name__ == "__main__":
    main()
