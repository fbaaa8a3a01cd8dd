"""Files that are no checkpoints: each is named for what it is, with what to do, in one sentence."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hostile_files import TAKEN
from other_files import KINDS, POINTER, names
from test_hostile_files import MEASURE, MEMORY, SECONDS

from mga.cli import main
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, read_metadata
from mga_kernels.checkpoints.published import LARGEST
from mga_kernels.errors import CheckpointError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for name, make in ({name: make for name, (make, _) in KINDS.items()} | TAKEN).items():
        (folder / name).write_bytes(make())
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_named_for_what_it_is(folder, name):
    path, said = folder / name, KINDS[name][1]
    with pytest.raises(CheckpointError, match=rf"^checkpoint: {re.escape(str(path))} is .*{said}") as caught:
        load_checkpoint(path)
    reason = str(caught.value).removeprefix(f"checkpoint: {path} is ")
    assert ";" in reason, "and what to do"
    assert "\n" not in reason
    assert not re.search(r"\.\s|Traceback|weights_only|Error\b", reason), "of several sentences, or a program's"
    assert reason.isprintable()
    assert len(reason) < 400


@pytest.mark.parametrize(
    "name", ["lfs pointer.pth", "page.safetensors", "zip.pth", "onnx.pth", "script.pth", "png.pth"]
)
def test_where_a_file_of_ours_is_expected_too(folder, name, capsys):
    said = KINDS[name][1]
    for read in (MaskGuidedSR.from_pretrained, read_metadata):
        with pytest.raises(CheckpointError, match=rf"^model: {re.escape(str(folder / name))} is .*{said}"):
            read(folder / name)
    for command in (["figures", "hr.png", "-o", "out", "--model"], ["upscale", "lr.png", "-o", "out.png", "--model"]):
        Path(folder / "lr.png").write_bytes(KINDS["png.pth"][0]())
        words = [str(folder / word) if "." in word or word == "out" else word for word in command]
        assert main([*words, str(folder / name)]) == 1
        assert re.search(said, capsys.readouterr().err)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
def test_memory_and_time_are_bounded(folder, forks):
    lines = forks.run(MEASURE, *(str(folder / name) for name in (*TAKEN, *KINDS))).splitlines()
    assert len(lines) == len(KINDS)
    for line in lines:
        grown, seconds, path = line.split(" ", 2)
        assert grown != "taken", path
        assert int(grown) < MEMORY, path
        assert float(seconds) < SECONDS, path


def test_what_others_wrote_does_not_reach_the_terminal(tmp_path):
    """Their titles and names are shown without what moves the cursor or ends the sentence, and not at any length."""
    for content in (
        b"<html><title>\x1b[2J\x07a\nb. c \xe2\x80\xae" + b"x" * 5000 + b"</title>",
        b'{"error": "\\u001b]0;x\\u0007 one. two\\nthree' + b"y" * 5000 + b'"}',
        b"one. two\x1b[1m\n" + b"z" * 5000,
        names("\x1b[2Jfoo.weight", "b" * 5000),
    ):
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        reason = str(caught.value).removeprefix(f"checkpoint: {path}")
        assert reason.isprintable()
        assert not re.search(r"\.\s", reason)
        assert len(reason) < 500


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, r"is a folder; give a file of weights$"),
        ({"net_x2.pth": b"x", "log.txt": b"x"}, r"is a folder; give a file of weights, such as net_x2\.pth in it$"),
        (
            {"data.pkl": b"x", "version": b"3"},
            r"is a folder, an unpacked file of PyTorch; download it again, and keep it",
        ),
        ({"model_index.json": b"{}"}, "is a folder with a diffusion model"),
        ({"saved_model.pb": b"x"}, "is a folder with a model of TensorFlow"),
    ],
)
def test_folders(tmp_path, files, said):
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(folder)


def test_large_files_are_named_without_being_read(tmp_path):
    path = tmp_path / "large.safetensors"
    for content, said in (
        (
            names("model.diffusion_model.input_blocks.0.0.weight"),
            r"has \d.* GiB, more than any network|Stable Diffusion",
        ),
        (b"GGUF\x03\x00\x00\x00", "a model in GGUF"),
        (b"\x1f\x8b\x08", "an archive"),
        (b"PK\x03\x04", r"has 1\.0 GiB, more than any network"),
        (b"\x80\x02", r"has 1\.0 GiB, more than any network"),
    ):
        path.write_bytes(content)
        with path.open("r+b") as stream:
            stream.truncate(LARGEST + 10)
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(path)


def test_a_shipped_model_that_is_misspelt():
    with pytest.raises(
        CheckpointError, match=r"'fsrcnn_x2' is neither a shipped model \(fsrcnn-x2, .*\) nor an existing"
    ):
        load_checkpoint("fsrcnn_x2")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(CheckpointError, match="is no regular file"):
        load_checkpoint(tmp_path / "pipe.pth")


def test_pointers_of_shared_cases(shared_data):
    cases = shared_data / "cases"
    with pytest.raises(CheckpointError, match="git-lfs pointer to a file of 12,345,678 bytes"):
        load_checkpoint(cases / "lfs_pointer.pth")
    with pytest.raises(CheckpointError, match=r'a web page \("Virus scan warning"\), saved instead of the file'):
        load_checkpoint(cases / "html_page.pth")
    assert POINTER.startswith((cases / "lfs_pointer.pth").read_bytes()[:40])
