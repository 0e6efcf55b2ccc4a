"""What this version of the package was tested with; ``device check`` compares the machine's."""

BUILD_YEAR = 2026  # of this version; no clock is right that shows an earlier one

# The distributions that decide whether a device understands its server and its own arithmetic:
# the version that was tested, and how many of its numbers must be the same. Of torch every
# version from 2.11 on is expected to work (``pyproject.toml``), so that only its first number is
# compared; flwr's wire protocol changes with the second.
TESTED = {
    "fed-gswgan": ("0.1.0", 3),
    "flwr": ("1.39.0", 2),
    "torch": ("2.14.1", 1),
}
