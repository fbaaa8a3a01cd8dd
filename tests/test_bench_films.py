"""bench/film_reuse.py: what is reused of a film, checked against frames that are made as a whole."""

import os
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).resolve().parent.parent / "bench"


def test_frames_of_films_are_checked_timed_and_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(BENCH))
    import film_reuse

    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    for film in film_reuse.FILMS.values():
        first, second = list(film(2))
        assert first.shape == (film_reuse.HEIGHT, film_reuse.WIDTH, 3)
        assert (first != second).any() == (film is not film_reuse.screen)
    monkeypatch.setattr(
        film_reuse, "FILMS", {"a cut": lambda frames: iter([*film_reuse.still(3), *film_reuse.held(1)])}
    )
    target = tmp_path / "page.md"
    film_reuse.main(["span-x4-fast", "--every", "2", "-o", str(target)])
    (row,) = target.read_text().splitlines()[2:]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["span-x4-fast", "a cut", "0", "1", "3"]
    assert 75 < int(cells[5].rstrip("%")) < 100
    assert float(cells[8]) == pytest.approx(float(cells[7]) / float(cells[6]), rel=0.05)
    pytest.importorskip("av", reason="needs PyAV")
    capsys.readouterr()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    film_reuse.main(["span-x4-fast", "--commands", "ffv1"])
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[2].strip("|").split("|")]
    assert cells[:3] == ["span-x4-fast", "a cut", "ffv1"]
    assert 0 <= int(cells[3].rstrip("%")) < 25  # none where convolutions are not in float32
    assert float(cells[6]) == pytest.approx(float(cells[5]) / float(cells[4]), rel=0.05)
    monkeypatch.setattr(film_reuse.Frames, "upscale", lambda frames, rgb: rgb)
    with pytest.raises(SystemExit, match="frame 0 is not what it is as a whole"):
        film_reuse.main(["span-x4-fast"])
