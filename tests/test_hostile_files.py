"""Files that are no checkpoints: each is refused in one sentence, nothing of it is run, and memory stays bounded."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import hostile_files
import pytest
from hostile_files import EXECUTED, FILES, HARMLESS, TAKEN
from PIL import Image
from test_odd_files import bounded

from mga.cli import main
from mga_kernels.checkpoints import is_whole, load_checkpoint
from mga_kernels.errors import CheckpointError

MEMORY = 64 << 20  # bytes by which refusing any of them may raise the peak of the process
SECONDS = 10  # of the processor, that one of them may take

MEASURE = """
import sys, time
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.errors import CheckpointError

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

for path in sys.argv[1:3]:
    load_checkpoint(path)
before = peak()
for path in sys.argv[3:]:
    started = time.process_time()
    try:
        load_checkpoint(path)
        print("taken", path)
    except CheckpointError:
        print(peak() - before, time.process_time() - started, path)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files, and a picture to upscale."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, make in (FILES | {name: lambda _, make=make: make() for name, make in TAKEN.items()}).items():
        (folder / name).write_bytes(make(folder / "canary"))
    Image.new("RGB", (20, 16), (90, 80, 70)).save(folder / "photo.png")
    return folder


def test_there_are_fifty():
    assert len(FILES) >= 50


@pytest.mark.parametrize("name", TAKEN)
def test_what_they_are_made_of_is_taken(folder, name):
    assert load_checkpoint(folder / name).config.network == "msrresnet"
    assert is_whole(folder / name)


@pytest.mark.parametrize("name", EXECUTED)
def test_the_code_would_run(tmp_path, name):
    """So that its not running means something."""
    canary = tmp_path / "canary"
    pickle.loads(EXECUTED[name](canary))
    assert canary.exists()


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_asked_for_beside_a_network_is_not_done(tmp_path, name):
    canary, path = tmp_path / "canary", tmp_path / name
    path.write_bytes(HARMLESS[name](canary))
    with bounded(name):
        assert load_checkpoint(path).config.network == "msrresnet"
    assert not canary.exists()


@pytest.mark.parametrize("name", FILES)
def test_one_sentence(folder, name, capfd):
    path, out = folder / name, folder / "large.png"
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert main(["upscale", str(folder / "photo.png"), "-o", str(out), "--model", str(path)]) == 1
    stdout, error = capfd.readouterr()
    assert (error, stdout) == (f"mga: {caught.value}\n", "")
    assert error.count("\n") == 1
    reason = error.removeprefix("mga: ").removeprefix("checkpoint: ").removeprefix("model: ")
    assert reason.startswith(str(path)), "it names the file"
    assert re.search(r"\w{3}", reason.removeprefix(str(path))), "and the reason"
    assert not re.search(r"\.\s|Traceback|weights_only|Error\b(?! while| code)", reason), (
        "of several sentences, or a program's"
    )
    assert len(reason) < len(str(path)) + 500
    assert not out.exists()
    assert not (folder / "canary").exists()


def test_code_is_named_and_not_run(folder):
    for name in (*EXECUTED, *hostile_files.CODE):
        with pytest.raises(CheckpointError, match=r"it asks for [\w. ]+; nothing of it was run; save its state_dict"):
            load_checkpoint(folder / name)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither a shipped model .* nor an existing file|there is no file"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="is a folder; give a file of weights"):
        load_checkpoint(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "sparse.pth").open("wb") as stream:
        stream.truncate(2 << 40)
    with pytest.raises(CheckpointError, match=r"has 2048.0 GiB, more than any network"):
        load_checkpoint(tmp_path / "sparse.pth")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
def test_memory_and_time_are_bounded(folder, forks):
    lines = forks.run(MEASURE, *(str(folder / name) for name in (*TAKEN, *FILES))).splitlines()
    assert len(lines) == len(FILES)
    for line in lines:
        grown, seconds, path = line.split(" ", 2)
        assert grown != "taken", path
        assert int(grown) < MEMORY, path
        assert float(seconds) < SECONDS, path
