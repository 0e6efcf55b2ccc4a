"""One question a file: prints a table and a ratio, asserts nothing."""
