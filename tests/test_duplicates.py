"""No eight lines of logic stand twice in ``mga_kernels``, ``csrc`` and ``python/mga``, under the same or other names.

Nor has a file more than 400 lines.

Logic is what is left without comments, docstrings, imports, signatures, declared fields, tables of data, and lines that
only pass on one argument or close a bracket.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("mga_kernels", "csrc", "python/mga")
LENGTH = 8
LONGEST = 400
SUFFIXES = {".c", ".cpp", ".cu", ".cuh", ".h", ".py"}
WORD = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[A-Za-z_]\w*|\d[\w.]*|[^\s\w]')
C_KEYWORDS = {*"auto bool break case char const constexpr continue do double else float for if inline int".split()} | {
    *"int64_t int32_t namespace return static struct switch template typename using void while".split()
}
KEYWORDS = {*keyword.kwlist, "self"}


class Line(NamedTuple):
    number: int
    words: list[str]


class Run(NamedTuple):
    path: Path
    first: int
    last: int


def of_python(text: str) -> list[Line]:
    tree = ast.parse(text)
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            left_out.update(range(node.lineno, node.body[0].lineno))
        elif (
            isinstance(node, ast.Import | ast.ImportFrom)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
            or (isinstance(node, ast.AnnAssign) and node.value is None)
        ):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            lines[token.start[0]].append(token.string)
    return [Line(number, words) for number, words in sorted(lines.items()) if number not in left_out]


def of_c(text: str) -> list[Line]:
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    lines = (re.sub(r"//.*|^\s*#\s*(include|pragma).*|\\$", "", line) for line in text.splitlines())
    return [Line(number, WORD.findall(line)) for number, line in enumerate(lines, 1)]


def says_something(words: list[str]) -> bool:
    """Whether a line is more than a bracket, data, or an argument of a call that has one on each line."""
    names = [word for word in words if word[0].isalpha() or word[0] == "_"]
    count = len(names) + sum(word[0].isdigit() for word in words)
    return bool(names) and count > 1 and not re.fullmatch(r"(\w+ = )?[\w.]+( \. \w+)* ,", " ".join(words))


def runs(path: Path) -> Iterator[tuple[tuple[str, ...], Run]]:
    """All runs of LENGTH lines that say something, and where they stand; names are numbered as they come."""
    python = path.suffix == ".py"
    keywords = KEYWORDS if python else C_KEYWORDS
    lines = (of_python if python else of_c)(path.read_text())
    lines = [line for line in lines if says_something(line.words)]
    for start in range(len(lines) - LENGTH + 1):
        some = lines[start : start + LENGTH]
        numbers: dict[str, int] = {}
        said = []
        for line in some:
            said.append(" ")
            for word in line.words:
                named = (word[0].isalpha() or word[0] in "_\"'") and word not in keywords
                said.append(f"n{numbers.setdefault(word, len(numbers))}" if named else word)
        yield tuple(said), Run(path, some[0].number, some[-1].number)


def twice(folders: list[Path]) -> list[tuple[Run, Run]]:
    """Pairs of runs that say the same; of a longer one, each run of LENGTH lines in it."""
    places: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.suffix in SUFFIXES:
            for said, run in runs(path):
                places[said].append(run)
    return [
        (first, other)
        for first, *others in places.values()
        for other in others
        if other.path != first.path or other.first > first.last
    ]


def test_no_file_is_longer_than_a_reader_takes():
    folders = *FOLDERS, "tests", "bench", "examples"
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    assert len(files) > 700
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}


def test_nothing_stands_twice():
    found = [
        " ~ ".join(f"{run.path.relative_to(ROOT)}:{run.first}-{run.last}" for run in pair)
        for pair in twice([ROOT / folder for folder in FOLDERS])
    ]
    assert found == [], "one piece of code can serve both places"


LOGIC = """
def mean_of({a}: list[float], {b}: float) -> float:
    # {comment}
    {c} = 0.0
    count = 0
    for value in {a}:
        if value <= {b}:
            continue
        {c} += value * 2
        count += 1
    {c} /= max(count, 1)
    return {c} if {c} > {b} else {b}
"""
KERNEL = """
// {comment}
float mean_of(const float* {a}, int n, float {b}) {{
  float {c} = 0;
  int count = 0;
  for (int i = 0; i < n; ++i) {{
    if ({a}[i] <= {b}) continue;
    {c} += {a}[i] * 2;
    ++count;
  }}
  {c} /= count > 1 ? count : 1;
  const float more = {c} - {b};
  return more > 0 ? {c} : {b};
}}
"""
NAMES = {"a": "values", "b": "least", "c": "total", "comment": "The first."}
OTHERS = {"a": "numbers", "b": "floor", "c": "result", "comment": "Another one."}


@pytest.mark.parametrize(("file", "text"), [("a.py", LOGIC), ("a.cpp", KERNEL)])
@pytest.mark.parametrize("names", [NAMES, OTHERS])
def test_what_is_planted_is_found(tmp_path, file, text, names):
    """Also beside the original, and under other names."""
    (tmp_path / file).write_text(text.format(**NAMES))
    other = tmp_path / f"other_{file}"
    other.write_text("\n\n" + text.format(**names))
    assert {(a.path.name, b.path.name) for a, b in twice([tmp_path])} == {(file, other.name)}
    assert all(b.first == a.first + 2 for a, b in twice([tmp_path]))
    other.write_text(text.format(**names).replace("* 2", "* 3").replace("+= 1", "+= 2").replace("++count", "--count"))
    assert twice([tmp_path]) == []
    (tmp_path / file).write_text(2 * text.format(**NAMES))
    assert twice([tmp_path])[0][1].path.name == file


def test_names_have_to_be_exchanged_throughout(tmp_path):
    (tmp_path / "a.py").write_text(LOGIC.format(**NAMES))
    changed = LOGIC.format(**OTHERS).replace("result /= max(count, 1)", "result /= max(count, floor)")
    (tmp_path / "b.py").write_text(changed)
    assert twice([tmp_path]) == []
