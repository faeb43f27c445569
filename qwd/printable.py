"""Names from outside as they may stand on a terminal."""


def printable(text: str) -> str:
    r"""``text`` on one line: whatever is not printable (control characters, lone halves of
    surrogate pairs, direction marks, line breaks) as its escape, ``\x1b`` or ``\u202e``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
