"""``bench/compare_commits.py``: two checkouts in turns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"


@pytest.fixture
def compare_commits(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import compare_commits

    return compare_commits


class Checkout:
    """Takes its time from a list; ``level`` is what its picture has everywhere."""

    def __init__(self, folder: Path, level: int, seconds: list[float], log: list[Path]):
        self.picture, self.level, self.seconds, self.log = folder / f"{len(log)}.npy", level, iter(seconds), log
        log.append(self.picture)

    def load(self, model: str) -> str:
        np.save(self.picture, np.full((4, 4, 3), self.level, dtype=np.uint8))
        return "float32"

    def ask(self, what: str) -> list[float]:
        self.log.append(self.picture)
        seconds = next(self.seconds)
        return [2 * seconds, seconds]


def test_ratios_are_those_of_each_round_and_turns_change(compare_commits, tmp_path, capsys):
    log: list[Path] = []
    before = Checkout(tmp_path, 7, [1.0, 9.0, 1.0], log)
    after = Checkout(tmp_path, 8, [1.1, 9.9, 3.0], log)  # in the last round something else was at work
    assert compare_commits.compare([before, after], "net", 3) == pytest.approx(1.1)
    assert log[2:] == [p.picture for p in (before, after, after, before, before, after)]
    assert "1.100 times of the clock,  1.100 of the processor" in capsys.readouterr().out


def test_other_pictures_are_not_timed(compare_commits, tmp_path):
    sides = [Checkout(tmp_path, level, [], [tmp_path] * level) for level in (7, 9)]
    with pytest.raises(SystemExit, match="net: the pictures differ by 2 levels"):
        compare_commits.compare(sides, "net", 3)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "compare_commits.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_a_checkout_against_itself(tmp_path):
    asked = "--models", "fsrcnn-x2", "--size", "32x24", "--rounds", "2"
    found = run(ROOT, ROOT, *asked, "--limit", "1000")
    assert found.returncode == 0, found.stderr
    assert re.match(
        r"fsrcnn-x2 +[\d.]+ +[\d.]+ s, +[\d.]+ times of the clock, +[\d.]+ of the processor\n$", found.stdout
    )
    refused = run(ROOT, tmp_path, *asked)
    assert refused.returncode == 1
    assert f"{tmp_path} has no native library; build it there" in refused.stderr
