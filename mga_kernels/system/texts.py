"""What stands in the place of a file: pointers of programs that keep large files elsewhere, and web pages."""

from __future__ import annotations

import codecs
import re

HEAD = 8192  # bytes at the beginning of a file, by which it is told
SHOWN = 60  # characters of a name or a text that somebody else wrote
AGAIN = "download it again"
_PAGE_STARTS = re.compile(r"<(head|body|title|script)")


def stand_in(head: bytes) -> str | None:
    """What follows "is", with the remedy, of a file that begins so; None for what is neither a pointer nor a page."""
    text = text_of(head)
    if not text:
        return None
    if re.match(r"version \S+\s+(ext-\S+ \S+\s+)*oid sha256:", text):
        stated = re.search(r"^size (\d{1,15})\s*$", text, re.MULTILINE)
        held = f" of {int(stated[1]):,} bytes" if stated else ""
        return f"a git-lfs pointer to a file{held}, not the file; run `git lfs pull` in its repository, or {AGAIN}"
    if re.match(r"(\.\./)*(\S*/)?annex/objects/", text):
        return "a git-annex pointer to a file, not the file; run `git annex get` in its repository"
    if re.match(r"(md5: \w+\s+)?(wdir: \S+\s+)?outs:\s", text):
        return "a DVC pointer to a file, not the file; run `dvc pull` in its repository"
    return _page(text) if text[0] == "<" else None


def _page(text: str) -> str | None:
    start = text[:2000].lower()
    other = re.match(r"<\?xml|<[a-z]", start) and "<html" not in start and not _PAGE_STARTS.match(start)
    if other or "<svg" in start:
        return None
    title = re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE)
    named = f' ("{shown(title[1])}")' if title and title[1].strip() else ""
    return (
        f"a web page{named}, saved instead of the file; open its link in a browser and download the file itself, "
        "which may need a login or a confirmation"
    )


def text_of(head: bytes) -> str | None:
    """The bytes as text, if they are one, without what is blank before it."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = head[: len(head) // 2 * 2].decode("utf-16", errors="replace")
    else:
        try:
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # a letter may be cut at the end
        except UnicodeDecodeError:
            text = head.decode("latin-1")
    odd = sum(not (c.isprintable() or c in "\t\r\n\f") for c in text)
    return text.lstrip("\ufeff \t\r\n\f") if odd == 0 else None


def shown(text: str) -> str:
    """A name or a text of others as part of a sentence: one line, not long, nothing that a terminal would obey."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = re.sub(r"\.\s", "; ", line).replace('"', "'").rstrip(".")
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."
