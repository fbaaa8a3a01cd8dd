"""Test sets in the layouts that people have, and the sets made of DIV8K."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mga.cli import main
from mga.evaluation import div8k
from mga.evaluation.resize import shrink_for_scale
from mga.evaluation.testsets import find_sets
from mga_kernels.errors import ImageError

SHARED_SETS = {"Set5": 5, "Set14": 14, "B100": 100, "Kodak24": 24}


def image(path: Path, size: tuple[int, int] = (24, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (len(path.name), 90, 50)).save(path)


def layout(folder: Path, scale: int, *pairs: tuple[str, str | None]) -> None:
    for hr, lr in pairs:
        image(folder / hr)
        if lr:
            image(folder / lr, (24 // scale, 24 // scale))


def found(folder: Path, scale: int, *only: str) -> dict[str, list[tuple[str, str | None]]]:
    return {
        one.name: [
            (str(hr.relative_to(folder)), None if lr is None else str(lr.relative_to(folder))) for hr, lr in one.pairs
        ]
        for one in find_sets(folder, scale, only)
    }


def test_the_usual_layouts_are_found_and_paired(tmp_path):
    expected = {
        "A": [("A/HR/a.png", "A/LR_bicubic/X2/ax2.png"), ("A/HR/b.png", "A/LR_bicubic/X2/bx2.png")],
        "B": [("B/GTmod12/a.png", "B/LRbicx2/a.png")],
        "C": [("C/image_SRF_2/img_001_SRF_2_HR.png", "C/image_SRF_2/img_001_SRF_2_LR.png")],
        "D": [("D_HR/1.png", "D_LR_bicubic/X2/1x2.png")],
        "E": [("HR/E/x2/a_HR_x2.png", "LR/LRBI/E/x2/a_LRBI_x2.png")],
        "F": [("F/a.png", None)],
        "G": [("G/original/a.png", None)],
    }
    for pairs in expected.values():
        layout(tmp_path, 2, *pairs)
    image(tmp_path / "A/LR_bicubic/X4/ax4.png", (6, 6))
    image(tmp_path / "B/original/a.png", (25, 25))
    image(tmp_path / ".hidden/a.png")
    (tmp_path / "empty").mkdir()
    assert found(tmp_path, 2) == expected
    assert list(found(tmp_path, 2, "F", "A")) == ["F", "A"]
    assert found(tmp_path, 3)["A"] == [("A/HR/a.png", None), ("A/HR/b.png", None)], "no LR images of this scale"
    assert [one.name for one in find_sets(tmp_path / "F", 2)] == ["F"], "a set itself"


def test_what_is_wrong_with_a_set_is_said(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        find_sets(tmp_path / "nowhere", 2)
    with pytest.raises(ImageError, match="there is no test set in"):
        find_sets(tmp_path, 2)
    layout(tmp_path, 2, ("A/HR/a.png", "A/LRbicx2/a.png"), ("A/HR/b.png", None))
    with pytest.raises(ImageError, match=r"LRbicx2 holds no LR image of b.png"):
        find_sets(tmp_path, 2)
    image(tmp_path / "A/LRbicx2/b.png")
    with pytest.raises(ImageError, match="holds no test set Set5, only A"):
        find_sets(tmp_path, 2, ["Set5"])


def test_a_set_that_changes_has_another_fingerprint(tmp_path):
    layout(tmp_path, 2, ("A/HR/a.png", "A/LR/X2/a.png"))
    before = find_sets(tmp_path, 2)[0].fingerprint()
    assert find_sets(tmp_path, 2)[0].fingerprint() == before
    path = tmp_path / "A/LR/X2/a.png"
    times, content = path.stat().st_mtime_ns, path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    os.utime(path, ns=(times, times))
    assert find_sets(tmp_path, 2)[0].fingerprint() != before, "though neither its size nor its time tells"
    path.write_bytes(content)
    assert find_sets(tmp_path, 2)[0].fingerprint() == before, "a copy"


def test_the_shared_sets_are_found(shared_data):
    sets = find_sets(shared_data / "data/testsets", 4)
    assert {one.name: len(one.pairs) for one in sets} == SHARED_SETS
    assert {one.name: one.given_lr for one in sets} == {name: name != "Kodak24" for name in SHARED_SETS}


@pytest.fixture
def _few(monkeypatch):
    monkeypatch.setattr(div8k, "SETS", {"Test2K": (range(1201, 1203), 4), "Test4K": (range(1203, 1204), 2)})


@pytest.mark.usefixtures("_few")
def test_sets_of_div8k_are_shrunk_and_go_on(tmp_path, capsys):
    source, target = tmp_path / "div8k", tmp_path / "sets"
    source.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 41, 3), dtype=np.uint8)
    for number in (1201, 1202):
        Image.fromarray(pixels[number - 1201]).save(source / f"{number}.png")
    (source / "readme.txt").write_text("1203")
    assert main(["test-sets", str(source), "-o", str(target)]) == 1
    assert "lacks 1 of the images 1203 to 1203 of Test4K, the first is 1203" in capsys.readouterr().err
    assert not target.exists(), "nothing is made before all is there"
    Image.fromarray(pixels[2]).save(source / "1203.png")
    assert main(["test-sets", str(source), "-o", str(target), "--only", "Test4K"]) == 0
    made = target / "Test4K/HR/1203.png"
    assert np.array_equal(np.asarray(Image.open(made)), shrink_for_scale(pixels[2], 2)[1])
    Image.new("RGB", (3, 3)).save(made)
    assert main(["test-sets", str(source), "-o", str(target)]) == 0
    assert Image.open(made).size == (3, 3), "what is there stays"
    assert np.array_equal(np.asarray(Image.open(target / "Test2K/HR/1202.png")), shrink_for_scale(pixels[1], 4)[1])
    assert {name: len(pairs) for name, pairs in found(target, 2).items()} == {"Test2K": 2, "Test4K": 1}
