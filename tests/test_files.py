"""Files that appear whole or not at all, and what an error of writing one is an error of."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import commands
import numpy as np
import pytest
import torch
from PIL import Image

from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import save_image
from mga_kernels.system import files
from mga_kernels.system.files import are_one_name, identities, identity, whole_file, writable_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"before")
    with whole_file(path) as stream:
        stream.write(b"12345")
        stream.seek(1)
        stream.write(b"x")
        stream.seek(0)
        assert stream.read() == b"1x345"
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"1x345"
    assert names(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("problem", [ValueError("mine"), OSError(5, "mine"), KeyboardInterrupt(), FileNotFoundError()])
def test_what_the_block_raises_stays_what_it_is(tmp_path, problem):
    def write():
        with whole_file(tmp_path / "out.bin") as stream:
            stream.write(b"half")
            raise problem

    with pytest.raises(type(problem)) as raised:
        write()
    assert raised.value is problem
    assert names(tmp_path) == []


def test_a_source_that_is_missing_is_no_error_of_the_output(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="source"),
        whole_file(tmp_path / "out.bin") as target,
        (tmp_path / "source.bin").open("rb") as source,
    ):
        shutil.copyfileobj(source, target)
    assert names(tmp_path) == []


@pytest.mark.parametrize("end", ["in a write", "when it is flushed", "when another error is made of it"])
def test_a_full_disk_is_an_error_of_the_output(tmp_path, full_disk, end):
    full_disk(100_000)

    def write():
        with whole_file(tmp_path / "out.bin", ImageError) as stream:
            try:
                stream.write(b"1" * 100_000)
                stream.write(b"2" * (10 if end == "when it is flushed" else 100_000))
            except OSError:
                if end == "when another error is made of it":
                    raise RuntimeError("the encoder gave up") from None
                raise

    with pytest.raises(ImageError, match=r"^cannot write .*out\.bin: No space left on device$"):
        write()
    assert names(tmp_path) == []


def test_an_error_that_the_block_swallows_leaves_no_file(tmp_path, full_disk):
    full_disk(10)

    def write():
        with whole_file(tmp_path / "out.bin") as stream, contextlib.suppress(OSError):
            stream.write(b"1" * 100_000)

    with pytest.raises(InputError, match="No space left"):
        write()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_pictures_name_the_full_disk_not_their_encoder(tmp_path, full_disk, name):
    full_disk(20_000)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    with pytest.raises(ImageError, match=r"cannot write .*No space left on device"):
        save_image(noise, tmp_path / name)
    assert names(tmp_path) == []


def test_states_name_the_full_disk_too(tmp_path, full_disk):
    from mga.training.loop import TrainingError, save_state

    full_disk(5_000)
    with pytest.raises(TrainingError, match=r"cannot write .*No space left on device"):
        save_state(tmp_path / "a.state", {"weights": torch.zeros(100_000)})
    assert names(tmp_path) == []


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    """Such as /dev/null, which root may replace, and then nothing works."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("pipe.png")
    for name, part in (("pipe.png", "no regular file"), ("folder.png", "folder"), ("link.png", "no regular file")):
        with pytest.raises(InputError, match=part), whole_file(tmp_path / name):
            pytest.fail("opened")
        with pytest.raises(ImageError, match=f"cannot write .*{name}"):
            save_image(Image.new("RGB", (2, 2)), tmp_path / name, overwrite=True)
    assert names(tmp_path) == ["folder.png", "link.png", "pipe.png"]
    assert (tmp_path / "pipe.png").is_fifo()


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real.bin").write_bytes(b"old")
    (tmp_path / "link.bin").symlink_to("disk/real.bin")
    (tmp_path / "new.bin").symlink_to("disk/nothing yet.bin")
    for name in ("link.bin", "new.bin"):
        with whole_file(tmp_path / name) as stream:
            stream.write(b"new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"new"
    assert names(tmp_path / "disk") == ["nothing yet.bin", "real.bin"]
    (tmp_path / "nowhere.bin").symlink_to("missing/file.bin")
    with pytest.raises(InputError, match=r"missing does not exist; create it"), whole_file(tmp_path / "nowhere.bin"):
        pytest.fail("opened")


@pytest.mark.parametrize(("name", "part"), [("x" * 300, "name too long"), ("a\0b", "null"), ("loop", "symbolic links")])
def test_names_that_no_file_can_have(tmp_path, name, part):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=f"(?i)^cannot write .*{part}"), whole_file(tmp_path / name):
        pytest.fail("opened")
    with pytest.raises(InputError, match=r"(?i)^cannot "):
        writable_folder(tmp_path / name)


def test_files_are_known_by_what_they_are(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "same").hardlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "b").write_text("b")
    known = identities([tmp_path / "a", tmp_path / "missing", "a\0b"])
    assert len(known) == 1
    assert all(identity(tmp_path / name) in known for name in ("a", "same", "link"))
    assert identity(tmp_path / "b") not in known
    assert identity(tmp_path / "missing") is None


def test_names_are_compared_by_trying(tmp_path, monkeypatch):
    assert not are_one_name(tmp_path, "A.png", "a.png")
    assert not are_one_name(tmp_path / "missing", "A.png", "a.png")
    assert names(tmp_path) == []
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: real(self.with_name(self.name.upper())))  # as such a disk does it
    assert are_one_name(tmp_path, "A.PNG", "a.png")
    assert names(tmp_path) == []


def test_a_second_signal_leaves_nothing_either(tmp_path):
    """The first ends the block, the second its cleaning up: what is left then goes when the process ends."""
    program = (
        "import sys, pathlib, signal; from mga_kernels.system.files import whole_file\n"
        "real = pathlib.Path.unlink\n"
        "def unlink(self, **options):\n"
        "    pathlib.Path.unlink = real\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "pathlib.Path.unlink = unlink\n"
        "with whole_file(sys.argv[1]) as stream:\n"
        "    stream.write(b'1')\n"
        "    print(len(list(pathlib.Path(sys.argv[1]).parent.iterdir())), flush=True)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
    )
    result = subprocess.run(
        commands.after(
            "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)",
            [sys.executable, "-c", program, str(tmp_path / "out.bin")],
        ),
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert result.stdout == "1\n"
    assert "KeyboardInterrupt" in result.stderr
    assert names(tmp_path) == []


def test_files_are_made_by_many_threads_at_once(tmp_path):
    def make(number):
        for _ in range(20):
            with whole_file(tmp_path / f"{number}") as stream:
                stream.write(b"x" * number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {str(n): n for n in range(1, 9)}
    assert not files._temporary
