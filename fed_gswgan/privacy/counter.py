"""External monotonic counter: the owner's program, which no backup of the ledger takes back.

The program is called with one whole number, raises its counter to that number unless it stands
higher, and prints where it stands. It may ask a TPM, a smart card, or another machine.
"""

import subprocess

PATIENCE_SECONDS = 30.0


def raise_counter(program: str, number: int) -> int:
    """Raise the counter to a number unless it stands higher, and return where it stands.

    Raises:
        OSError: the program does not start, does not end in time, or fails.
        ValueError: it prints no whole number, or less than it was raised to.
    """
    command = [program, str(number)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=True,
            timeout=PATIENCE_SECONDS,
        )  # fmt: skip
    except subprocess.SubprocessError as error:
        raise OSError(f"counter={program!r}: {error}") from error
    said = done.stdout.strip()
    if not said.isdigit() or len(said) > 18 or int(said) < number:
        raise ValueError(
            f"counter={program!r} printed {said[:40]!r}, must print a whole number >= {number}"
        )
    return int(said)
