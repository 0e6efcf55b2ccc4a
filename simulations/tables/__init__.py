"""The paper's tables and its debugging scenario, run from a checkout."""
