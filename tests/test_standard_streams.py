"""``mga upscale - -o -``: an image through standard input and output, which hold nothing else."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from PIL import Image
from upscaling import names, write

from mga_kernels.images import read_image


class Pipe(io.TextIOWrapper):
    """A stream of the process that holds bytes and is no terminal unless it says so."""

    def __init__(self, data=b"", terminal=False):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    @property
    def data(self):
        return self.buffer.getvalue()


@pytest.fixture
def through(mga_upscale, monkeypatch):
    """(code, what came out, output of errors) of the command with these bytes on standard input."""

    def run(data, *arguments):
        out = Pipe()
        monkeypatch.setattr(sys, "stdin", data if data is None or isinstance(data, Pipe) else Pipe(data))
        monkeypatch.setattr(sys, "stdout", out)
        code, output = mga_upscale(*arguments)
        return code, out.data, output.err

    return run


def image_of(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("m.jpg", "JPEG"), ("a.webp", "WEBP"), ("a.bmp", "PNG")])
def test_the_format_is_that_of_the_input(tmp_path, folder, through, mga_upscale, name, kind):
    source = write(folder / name)
    code, data, errors = through(source.read_bytes(), "-", "-o", "-")
    assert code == 0
    assert errors.startswith("- -> - (16x12")
    image = image_of(data)
    assert (image.format, image.size) == (kind, (16, 12))
    mga_upscale(source, "-o", tmp_path / f"file.{kind.lower()}")
    assert data == (tmp_path / f"file.{kind.lower()}").read_bytes()


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("tiff", "TIFF")])
def test_the_format_is_what_is_asked_for(folder, through, name, kind):
    code, data, errors = through(b"", folder / "a.png", "-o", "-", "--format", name)
    assert (code, image_of(data).format) == (0, kind)
    assert "a.png -> -" in errors


def test_standard_input_into_a_file(tmp_path, folder, through):
    data = (folder / "a.png").read_bytes()
    code, out, _ = through(data, "-", "-o", tmp_path / "out.png", "--save-mask", tmp_path / "mask.png")
    assert code == 0
    assert out.decode().startswith(f"- -> {tmp_path / 'out.png'}")
    assert names(tmp_path) == ["in", "mask.png", "out.png"]
    code, out, errors = through(data, "-", "-o", tmp_path / "out.png")
    assert (code, out) == (1, b"")
    assert "exists already" in errors
    code, out, errors = through(data, "-", "-o", tmp_path / "new.png", "--format", "jpg")
    assert (code, out) == (1, b"")
    assert "contradicts the name" in errors


def test_notes_and_masks_beside_standard_output(tmp_path, through):
    Image.new("CMYK", (8, 6)).save(tmp_path / "a.jpg")
    code, data, errors = through((tmp_path / "a.jpg").read_bytes(), "-", "-o", "-", "--save-mask", tmp_path / "m.png")
    assert (code, image_of(data).mode) == (0, "RGB")
    assert "  standard input: converted from CMYK to sRGB" in errors
    assert read_image(tmp_path / "m.png").rgb.shape[1:] == (16, 3)


REFUSED = [
    (["-", "IN/a.png", "-o", "OUT/"], "standard input is one image"),
    (["-", "-", "-o", "-"], "standard output holds one image"),
    (["IN", "-o", "-"], "standard output holds one image"),
    (["IN/a.png", "IN/z.png", "-o", "-"], "standard output holds one image"),
    (["-", "-o", "OUT/"], "must be that of a file"),
    (["-", "-o", "IN"], "must be that of a file"),
    (["-", "-o", "-", "--save-mask", "IN"], "must be that of a file"),
    (["-", "-o", "-", "--save-mask", "-"], "cannot write -"),
    (["-", "-o", "-", "--skip-existing"], "leave it out"),
    (["-", "-o", "-", "--failures", "OUT"], "leave --failures out"),
    (["-", "-o", "OUT.bmp"], "the extension .bmp"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_what_streams_do_not_go_with(tmp_path, folder, through, arguments, sentence):
    arguments = [word.replace("IN", str(folder)).replace("OUT", str(tmp_path / "out")) for word in arguments]
    code, out, errors = through((folder / "a.png").read_bytes(), *arguments)
    assert (code, out) == (1, b"")
    assert sentence in errors
    assert errors.count("\n") == 1
    assert names(tmp_path) == ["in"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "standard input is empty (0 bytes)"),
        (b"a text", "standard input is not an image of a kind that can be read here"),
        (b"\x89PNG\r\n\x1a\n and no more", "standard input is damaged"),
        (None, "there is no standard input"),
        (Pipe(terminal=True), "standard input is a terminal"),
    ],
)
def test_standard_input_that_is_no_image(tmp_path, through, data, sentence):
    for output in ("-", tmp_path / "out.png"):
        code, out, errors = through(data, "-", "-o", output)
        assert (code, out) == (1, b"")
        assert errors.startswith(f"mga: {sentence}")
        assert errors.count("\n") == 1
        assert names(tmp_path) == []


def test_standard_output_that_takes_no_image(folder, mga_upscale, monkeypatch):
    for stream, sentence in ((Pipe(terminal=True), "is a terminal"), (None, "there is no standard output")):
        monkeypatch.setattr(sys, "stdout", stream)
        code, output = mga_upscale(folder / "a.png", "-o", "-")
        assert code == 1
        assert sentence in output.err


def test_a_file_that_is_called_so_is_a_file(tmp_path, folder, through, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "a.png").rename(tmp_path / "-")
    code, out, _ = through(b"not this", "./-", "-o", tmp_path / "out.png")
    assert code == 0
    assert out.decode().startswith(f"{tmp_path / '-'} -> ")
    code, out, errors = through((folder / "z.png").read_bytes(), "-", "-o", "./-")
    assert (code, out) == (1, b"")
    assert "must be that of a file" in errors
    os.mkdir("folder")
    os.rename("-", "folder/-")
    os.mkdir("-")  # a folder of that name is none of the inputs either
    code, out, _ = through((folder / "z.png").read_bytes(), "-", "-o", "-")
    assert (code, image_of(out).size) == (0, (16, 12))


def test_too_large_for_its_format_and_transparency_that_it_cannot_hold(tmp_path, through):
    Image.new("RGBA", (8, 6), (1, 2, 3, 4)).save(tmp_path / "a.png")
    code, out, errors = through((tmp_path / "a.png").read_bytes(), "-", "-o", "-", "--format", "jpg")
    assert (code, out) == (1, b"")
    assert "cannot write to standard output: JPEG holds no transparency" in errors
    Image.new("L", (8200, 1)).save(tmp_path / "b.webp")
    code, out, errors = through((tmp_path / "b.webp").read_bytes(), "-", "-o", "-")
    assert (code, out) == (1, b"")
    assert "WEBP holds at most" in errors


# In a process of its own: the real files behind the streams.

PRINTING = """
import os, sys
import mga.upscaling.work as work
real = work.compute_job
def compute(*arguments):
    os.write(1, b"by a library in C")
    print("by accident")
    return real(*arguments)
work.compute_job = compute
from mga.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_what_is_printed_meanwhile_goes_to_standard_error(folder, model_file, forks):
    program = [forks.python, "-c", PRINTING, "upscale", "--model", model_file, "-", "-o", "-"]
    with open(folder / "a.png", "rb") as given:
        result = subprocess.run(program, stdin=given, capture_output=True, check=True)
    assert image_of(result.stdout).size == (16, 12)
    assert b"by a library in C" in result.stderr
    assert b"by accident" in result.stderr


def test_outputs_that_end_early(folder, mga_upscale, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as left, open("/dev/full", "w") as full:
        for stream in (left, full):
            monkeypatch.setattr(sys, "stdout", stream)
            code, output = mga_upscale(folder / "a.png", "-o", "-")
            if stream is left:
                assert (code, output.err.count("\n")) == (141, 1)
    assert code == 1
    assert output.err.splitlines()[-1] == (
        "mga: the output of the command could not be written: No space left on device"
    )
