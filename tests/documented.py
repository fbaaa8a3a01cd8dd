"""What README.md and the pages of docs/ print: their fenced blocks, their commands, and the code between backquotes."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")
PROGRAMS = ("mga", "make", "pip", "python", "torchrun")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page that it is on, its line there, the language that it names, and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """Words of a command as a shell makes them, and what is put into its environment before them."""

    where: str
    environment: dict[str, str]
    words: list[str]

    def __str__(self) -> str:
        return f"{self.where.partition(':')[0]}: {shlex.join(self.words)}"


def blocks() -> list[Block]:
    found = []
    for page, path in PAGES.items():
        text = path.read_text()
        for match in FENCED.finditer(text):
            found.append(Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return found


def command(text: str, where: str) -> Command | None:
    """None where the text is no command of a program that the pages speak of."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return None
    environment = {}
    while words and ASSIGNMENT.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    return Command(where, environment, words) if words and words[0] in PROGRAMS else None


def printed_commands() -> list[Command]:
    """The commands in fenced blocks, which are to be typed as they stand."""
    found = []
    for block in blocks():
        if block.language in ("", "bash", "sh", "console"):
            lines = re.sub(r"\\\n", " ", block.text).splitlines()
            found += [command(line.removeprefix("$ "), str(block)) for line in lines]
    return [one for one in found if one is not None]


def spans() -> list[tuple[str, str]]:
    """(page, code) of everything between backquotes in the text around the blocks, line breaks as spaces."""
    found = []
    for page, path in PAGES.items():
        text = FENCED.sub("", path.read_text())
        found += [(page, " ".join(code.split())) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    return found


def mentioned_commands() -> list[Command]:
    """Commands in the text: some whole, some no more than a verb and the option that a sentence is about."""
    return [one for page, code in spans() if (one := command(code, page)) is not None and len(one.words) > 1]
