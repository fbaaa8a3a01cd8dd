"""``bench/command.py``: the whole command of two checkouts in turns."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def command(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import command

    return command


class Checkout:
    """Takes its seconds from a list, and makes a picture that has ``level`` everywhere."""

    def __init__(self, picture: Path, level: int, seconds: list[float]):
        self.picture, self.seconds = picture, iter(seconds)
        Image.fromarray(np.full((4, 4, 3), level, dtype=np.uint8)).save(picture)

    def ask(self, what: str) -> tuple[float, float]:
        seconds = next(self.seconds)
        return 2 * seconds, seconds


def test_ratios_are_those_of_each_round_and_the_first_run_does_not_count(command, tmp_path, capsys):
    before = Checkout(tmp_path / "before.png", 7, [50.0, 1.0, 9.0, 1.0])
    after = Checkout(tmp_path / "after.png", 8, [70.0, 0.5, 4.5, 3.0])
    command.compare([before, after], "4x4", 3)
    clock, processor = capsys.readouterr().out.splitlines()
    assert clock.split() == "4x4 2.000 6.000 s of the clock, 0.500 times".split()
    assert processor.split() == "4x4 1.000 3.000 s of the processor, 0.500 times".split()


def test_other_pictures_are_not_timed(command, tmp_path):
    checkouts = [Checkout(tmp_path / f"{level}.png", level, [1.0]) for level in (7, 9)]
    with pytest.raises(SystemExit, match="4x4: the pictures differ"):
        command.compare(checkouts, "4x4", 3)


def test_pictures_of_other_models_have_one_size(command, tmp_path, capsys):
    checkouts = [Checkout(tmp_path / f"{level}.png", level, [1.0, 1.0]) for level in (7, 9)]
    command.compare(checkouts, "4x4", 1, alike=False)
    assert "1.000 times" in capsys.readouterr().out
    Image.fromarray(np.zeros((4, 8, 3), dtype=np.uint8)).save(checkouts[1].picture)
    checkouts[0].seconds, checkouts[1].seconds = iter([1.0]), iter([1.0])
    with pytest.raises(SystemExit, match="4x4: the pictures differ"):
        command.compare(checkouts, "4x4", 1, alike=False)


def test_what_is_held_down_is_told_to_all_who_compute(command, tmp_path):
    place = tmp_path, tmp_path / "image.jpg", tmp_path / "picture.png"
    free, held = command.Command(*place, None), command.Command(*place, None, "avx2")
    told = {name: held.environment[name] for name in held.environment if held.environment[name] in ("avx2", "AVX2")}
    assert set(told) == {"MGA_CPU_ISA", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"}
    assert held.words == [*free.words, "--dtype", "float32"]
    assert "--model" not in free.words


def test_a_checkout_against_itself(command, monkeypatch, capsys):
    words = ["command.py", str(ROOT), str(ROOT), "--sizes", "8x6", "--rounds", "1", "--model"]
    monkeypatch.setattr(sys, "argv", [*words, "fsrcnn-x2"])
    command.main()
    line = r"8x6 +[\d.]+ +[\d.]+ s of the {}, [\d.]+ times\n"
    found = re.fullmatch(line.format("clock") + line.format("processor"), capsys.readouterr().out)
    assert found, "two lines"
    monkeypatch.setattr(sys, "argv", [*words, "none-such"])
    with pytest.raises(SystemExit, match=r"none-such.* is neither a shipped model"):
        command.main()
