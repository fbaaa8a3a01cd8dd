"""Runs over a folder that are killed: the next one goes on, and neither half a file nor a hidden one stays."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mga_kernels.system.files import remove_left_parts, whole_file

WRITES = """
import os, signal, sys
from mga_kernels.system.files import whole_file
with whole_file(sys.argv[1]) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder_killed(monkeypatch):
    """The bench."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "bench"))
    import folder_killed

    return folder_killed


def hidden(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def killed_while_writing(path):
    subprocess.run([sys.executable, "-c", WRITES, path], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path, folder, mga_upscale):
    out = tmp_path / "out"
    out.mkdir()
    killed_while_writing(out / "a.png")
    (part,) = hidden(out)
    assert part.read_bytes() == b"half"
    (out / ".mga-mine").write_text("of somebody else")
    code, output = mga_upscale(folder, "-o", out, "--skip-existing")
    assert (code, output.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [".mga-mine", "a.png", "m.jpg", "z.png"]


def test_what_another_process_writes_stays(tmp_path):
    """However long it takes over it: until the file has its name."""
    with whole_file(tmp_path / "slow.png") as stream:
        stream.write(b"all ")
        stream.flush()
        assert remove_left_parts(tmp_path) == 0
        stream.write(b"of it")
    assert (tmp_path / "slow.png").read_bytes() == b"all of it"
    assert hidden(tmp_path) == []


def test_a_file_stays_marked_when_it_is_closed_and_has_no_name_yet(tmp_path, monkeypatch):
    real, seen = os.replace, []

    def replace(source, target):
        seen.append(remove_left_parts(tmp_path))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with whole_file(tmp_path / "a") as stream:
        stream.write(b"it")
    assert seen == [0]
    assert (tmp_path / "a").read_bytes() == b"it"


def test_what_was_left_goes_at_once(tmp_path):
    """Also when the next run starts in the same moment."""
    killed_while_writing(tmp_path / "a.png")
    assert remove_left_parts(tmp_path) == 1
    assert hidden(tmp_path) == []
    assert remove_left_parts(tmp_path / "nowhere") == 0


def test_what_goes_before_it_is_marked_is_made_again(tmp_path, monkeypatch):
    """Another process finds a file that was made this moment, and takes it for one that was left."""
    real, seen = fcntl.flock, []

    def flock(file, operation):
        if not seen and not operation & fcntl.LOCK_NB:
            seen.append(None)
            seen.append(remove_left_parts(tmp_path))
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with whole_file(tmp_path / "a") as stream:
        stream.write(b"it")
        assert remove_left_parts(tmp_path) == 0
    assert seen == [None, 1]
    assert (tmp_path / "a").read_bytes() == b"it"
    assert hidden(tmp_path) == []


def test_a_run_that_is_killed_twice(folder_killed, capsys, monkeypatch):
    """The bench, of few images."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(folder_killed, "SETTLED", 20)
    folder_killed.main(["--files", "90"])
    lines = capsys.readouterr().out.splitlines()
    assert ["killed" in line for line in lines] == [True, True, False, False]
    assert lines[-1].startswith("90 of 90 results are there, each once, whole and right")
    grown = [float(line.split("at most ")[1].split()[0]) for line in lines if "at most" in line]
    assert grown
    assert max(grown) < 50


def test_the_bench_finds_what_is_wrong(folder_killed, tmp_path):
    images, results = tmp_path / "images", tmp_path / "results"
    folder_killed.make_images(images, 60)
    results.mkdir()
    for path in images.iterdir():
        (results / path.name).write_bytes(path.read_bytes())
    assert folder_killed.faults(images, results) == []
    data = (results / "000003.png").read_bytes()
    (results / "000003.png").write_bytes(data[:-30])
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(results / "000054.png")
    (results / "000007.png").rename(results / "000007-2.png")
    found = folder_killed.faults(images, results)
    words = "000007.png is missing", "000007-2.png is too much", "000003.png is half written", "000054.png is not what"
    assert len(found) == 4
    assert all(any(line.startswith(start) for line in found) for start in words)


@pytest.mark.parametrize("status", [0, 1])
def test_memory_that_grows_is_seen(folder_killed, tmp_path, monkeypatch, status):
    folder_killed.make_images(tmp_path / "in", 6)
    grows = (
        "import os, sys, time, pathlib\n"
        "out = pathlib.Path(sys.argv[-4]); out.mkdir()\n"
        "held = []\n"
        "for i in range(6):\n"
        "    (out / f'{i:06}.png').write_bytes(b'x'); time.sleep(0.3)\n"
        "    held.append(bytearray(os.urandom(1) * (20 << 20)))\n"
        f"sys.exit({status})"
    )
    monkeypatch.setattr(folder_killed, "COMMAND", [sys.executable, "-c", grows])
    monkeypatch.setattr(folder_killed, "SETTLED", 2)
    done = folder_killed.run(tmp_path / "in", tmp_path / "out", "any", None)
    assert (done.made, done.status) == (6, status)
    assert done.grown > 50 << 20
