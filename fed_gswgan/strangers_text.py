"""What a stranger says, as it may stand in a log or a reply."""

LONGEST_LINE = 300


def one_line(text: str) -> str:
    """Return the text as one short line, so that it can neither forge nor fill a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST_LINE])
