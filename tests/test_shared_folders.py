"""A folder whose images several processes share, as torchrun starts them."""

import os
import signal
import subprocess
import sys
import time

import pytest
from upscaling import names, write

from mga_kernels import MaskGuidedSR


@pytest.fixture
def many(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(7):
        write(folder / f"{number}.png")
    return folder


def as_process(monkeypatch, rank, world):
    for name, value in {"RANK": rank, "WORLD_SIZE": world}.items():
        monkeypatch.setenv(name, str(value))


def test_each_image_is_made_by_one_process(tmp_path, many, mga_upscale, monkeypatch):
    """Also where another has finished before this one begins."""
    out, made = tmp_path / "out", []
    real = MaskGuidedSR.upscale
    monkeypatch.setattr(MaskGuidedSR, "upscale", lambda self, *a, **k: made.append(1) or real(self, *a, **k))
    for rank, count in ((2, 2), (0, 3), (1, 2)):
        as_process(monkeypatch, rank, 3)
        made.clear()
        code, output = mga_upscale(many, "-o", out)
        assert (code, output.err) == (0, "")
        assert len(made) == len(output.out.splitlines()) == count
    assert names(out) == names(many)
    code, output = mga_upscale(many, "-o", out)  # its own ones are there
    assert code == 1
    assert "--skip-existing goes on" in output.err
    (out / "1.png").unlink()
    code, output = mga_upscale(many, "-o", out, "--skip-existing")
    assert code == 0
    assert names(out) == names(many)


def test_more_processes_than_images(tmp_path, mga_upscale, monkeypatch):
    write(tmp_path / "a.png")
    as_process(monkeypatch, 1, 2)
    assert mga_upscale(tmp_path / "a.png", "-o", tmp_path / "b.png") == (0, ("", ""))
    as_process(monkeypatch, 0, 2)
    assert mga_upscale(tmp_path / "a.png", "-o", tmp_path / "b.png")[0] == 0
    as_process(monkeypatch, 1, 2)
    assert mga_upscale(tmp_path / "a.png", "-o", tmp_path / "b.png") == (0, ("", ""))


def test_what_processes_cannot_share(tmp_path, many, mga_upscale, monkeypatch):
    as_process(monkeypatch, 0, 2)
    code, output = mga_upscale(many, "-o", tmp_path / "out", "--failures", tmp_path / "failed.txt")
    assert code == 1
    assert "several processes cannot write one list" in output.err
    code, output = mga_upscale(many / "1.png", "-o", "-")
    assert code == 1
    assert "no work for several processes" in output.err


WRONG_SHARES = {
    "no WORLD_SIZE": {"RANK": "3"},
    "more than there are": {"RANK": "2", "WORLD_SIZE": "2"},
    "before the first": {"RANK": "-1", "WORLD_SIZE": "2"},
    "none": {"WORLD_SIZE": "0"},
    "words": {"RANK": "first", "WORLD_SIZE": "2"},
    "a fraction": {"RANK": "0", "WORLD_SIZE": "2.0"},
    "words on this machine": {"LOCAL_WORLD_SIZE": "all"},
    "more than there are on this machine": {"LOCAL_RANK": "1"},
}


@pytest.mark.parametrize("wrong", WRONG_SHARES)
def test_a_share_that_cannot_be_is_a_sentence(tmp_path, many, mga_upscale, monkeypatch, wrong):
    """Not images that are left out without a word."""
    for name, value in WRONG_SHARES[wrong].items():
        monkeypatch.setenv(name, value)
    code, output = mga_upscale(many, "-o", tmp_path / "out")
    assert (code, output.out) == (1, "")
    assert output.err.count("\n") == 1
    assert any(f"{name}={value}" in output.err for name, value in WRONG_SHARES[wrong].items())
    assert "as torchrun" in output.err
    assert not (tmp_path / "out").exists()


def test_a_share_that_is_empty_is_none(tmp_path, many, mga_upscale, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    assert mga_upscale(many, "-o", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == names(many)


@pytest.mark.slow
def test_torchrun_with_one_process_killed(tmp_path, many, model_file):
    """The others are ended, too; the same command again makes what is missing, and nothing twice."""
    for number in range(7, 200):
        write(many / f"{number}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "mga", "upscale", many, "-o", out, "--model", model_file, "--skip-existing"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        started = time.monotonic()
        while time.monotonic() - started < 120 and (not out.is_dir() or len(names(out)) < 5):
            time.sleep(0.01)
        children = [int(line) for line in subprocess.check_output(["pgrep", "-P", str(first.pid)]).split()]
        for child in children[:1]:
            os.kill(child, signal.SIGKILL)
        assert first.wait(120) != 0
    kept = {name: os.stat(out / name).st_mtime_ns for name in names(out) if not name.startswith(".")}
    assert 5 <= len(kept) < 200
    time.sleep(1.1)  # until what was being written is known to have no owner
    assert subprocess.run(command, env=environment, capture_output=True, timeout=240).returncode == 0
    assert names(out) == names(many)
    assert all(os.stat(out / name).st_mtime_ns == when for name, when in kept.items())
