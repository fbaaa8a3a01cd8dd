"""A small model, a folder of images and the commands, for tests of ``mga upscale`` and ``mga video``."""

import errno
import os

import numpy as np
import pytest
from PIL import Image
from tiny_model import write_tiny_model

from mga.cli import main
from mga.upscaling.jobs import Request
from mga_kernels.system import files


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def mga_upscale(model_file, capsys):
    def run(*arguments):
        code = main(["upscale", "--model", str(model_file), *map(str, arguments)])
        return code, capsys.readouterr()

    return run


@pytest.fixture
def mga_video(model_file, capsys):
    from films_made import video_command  # which needs PyAV

    return video_command(model_file, capsys)


@pytest.fixture
def few_frames_a_part(monkeypatch):
    monkeypatch.setattr("mga.upscaling.video.PART", 5)


@pytest.fixture(name="folder")
def picture_folder(tmp_path):
    """A folder of three images, a.png, m.jpg and z.png."""
    path = tmp_path / "in"
    path.mkdir()
    for name in ("a.png", "m.jpg", "z.png"):
        write(path / name)
    return path


@pytest.fixture
def full_disk(monkeypatch):
    """Writing to the disk fails from the given number of bytes on."""

    def fill(room):
        real = files._File.write

        def write(self, data):
            if self.tell() + len(data) > room:
                return self._remembering(refuse)
            return real(self, data)

        def refuse():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(files._File, "write", write)

    return fill


def write(path, height=6, width=8):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def the_line_about(name, output):
    found = [line for line in output.err.splitlines() if str(name) in line]
    assert len(found) == 1, output.err
    return found[0]


def arguments(inputs, output, **given):
    return Request(inputs, str(output), **given)
