"""Count of the project's files and functions that one in-process round enters.

``python -m benchmarks.round_trace`` runs digits.toml for two rounds in this process and traces the
second one, from the moment the server has written down the first until it has written down the
second. Modules, lambdas and comprehensions do not count. ``--list`` prints every function.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from unittest.mock import patch

from server.run_recorder import RunRecorder
from simulations.run import main as simulate

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fed_gswgan", "server", "client", "simulations")
ROUNDS = 2
OWN_SETTINGS = {"gs-wgan": [], "fedavg-gan": ["algorithm=fedavg-gan", "trust=central"]}


def traced_round(algorithm: str) -> list[tuple[str, str]]:
    """Return the (file, function) pairs that round 2 enters, sorted."""
    entered: set[CodeType] = set()

    def on_event(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            entered.add(frame.f_code)

    on_round = RunRecorder.on_round

    def reported(recorder: RunRecorder, report: object) -> None:
        on_round(recorder, report)  # type: ignore[arg-type]
        sys.setprofile(on_event if recorder.finished_round == 1 else None)

    settings = [f"rounds={ROUNDS}", "evaluation-samples=0", *OWN_SETTINGS[algorithm]]
    words = ["--config", "simulations/configs/digits.toml", "--runtime", "in-process"]
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(RunRecorder, "on_round", reported),
    ):
        words += ["--workers", "1", "--output", str(Path(folder) / "run")]
        status = simulate([*words, *(word for s in settings for word in ("--set", s))])
    if status != 0:
        raise SystemExit(f"the run ended with status {status}")
    paths = {code: Path(code.co_filename) for code in entered if "<" not in code.co_name}
    own = {code: p.relative_to(ROOT) for code, p in paths.items() if p.is_relative_to(ROOT)}
    return sorted({(str(p), c.co_qualname) for c, p in own.items() if p.parts[0] in PACKAGES})


def main() -> None:
    """Print both counts, and every function if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", default="gs-wgan", choices=OWN_SETTINGS)
    parser.add_argument("--list", action="store_true", help="print every function")
    options = parser.parse_args()
    found = traced_round(options.algorithm)
    for file, function in found if options.list else ():
        print(f"{file}  {function}")
    files = {file for file, _ in found}
    print(f"{options.algorithm}: one round enters {len(files)} files and {len(found)} functions")


if __name__ == "__main__":
    main()
