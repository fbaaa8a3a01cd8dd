"""Lines that commands print about files, whose names may hold anything but a zero and a slash."""

from __future__ import annotations

SURROGATES = range(0xD800, 0xE000)  # bytes of a name that is no text, which the stream spells out


def one_line(text: str) -> str:
    """``text`` with characters that end a line or that a terminal obeys written as \\n and \\x1b."""
    return "".join(c if c.isprintable() or ord(c) in SURROGATES else c.encode("unicode_escape").decode() for c in text)
