"""One file that fails costs no other, whatever it is, and neither does a stream that cannot be written to."""

import errno
import io
import os
import subprocess
import sys

import commands
import pytest
from PIL import Image
from upscaling import names, the_line_about, write

import mga.upscaling.work
from mga.console.failures import line_about
from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.errors import ImageError, InputError, OutOfMemoryError

NO_TEXT = "gr\udcfc\udcdfe.png"  # the name of a file as another system wrote it, which is no UTF-8

# One file that fails


def lost_link(folder):
    (folder / "b.png").symlink_to("nowhere.png")
    return "b.png", "does not exist"


def endless_link(folder):
    (folder / "b.png").symlink_to("b.png")
    return "b.png", "cannot be opened"


def pipe(folder):
    os.mkfifo(folder / "b.png")
    return "b.png", "not a regular file"


def device(folder):
    (folder / "b.png").symlink_to("/dev/zero")
    return "b.png", "not a regular file"


def no_bytes(folder):
    (folder / "b.png").touch()
    return "b.png", "is empty"


def text(folder):
    (folder / "b.png").write_text("a text")
    return "b.png", "not an image"


def pointer(folder):
    (folder / "b.png").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 12345\n")
    return "b.png", "a git-lfs pointer to a file of 12,345 bytes, not the file; run `git lfs pull`"


def page(folder):
    (folder / "b.jpg").write_text("<!DOCTYPE html><html><head><title>Log in</title></head></html>")
    return "b.jpg", 'a web page ("Log in"), saved instead of the file'


def one_byte(folder):
    (folder / "b.png").write_bytes(b"x")
    return "b.png", "not an image"


def half(folder):
    data = write(folder / "b.png", 40, 40).read_bytes()
    (folder / "b.png").write_bytes(data[: len(data) // 2])
    return "b.png", "damaged"


def measurements(folder):
    Image.new("F", (4, 4)).save(folder / "b.tif")
    return "b.tif", "32 bits per channel (floating-point numbers)"


def output_that_is_a_folder(folder):
    write(folder / "b.png")
    (folder.parent / "out" / "b.png").mkdir(parents=True)
    return "b.png", "is a folder"


def name_too_long_for_its_output(folder):
    name = "b" * 251 + ".bmp"
    write(folder / name)
    return name, "File name too long"


FAULTS = (lost_link, endless_link, pipe, device, no_bytes, text, pointer, page, one_byte, half, measurements)
FAULTS += (output_that_is_a_folder,)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_fails_is_a_line_and_the_others_are_done(tmp_path, folder, mga_upscale, fault):
    name, part = fault(folder)
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == 1
    assert part in the_line_about(name, output)
    assert "1 of 4 images failed" in output.err
    assert [path.name for path in sorted((tmp_path / "out").iterdir()) if path.is_file()] == ["a.png", "m.jpg", "z.png"]
    assert len(output.out.splitlines()) == 3


@pytest.mark.parametrize("option", [["--format", "tiff"], ["--save-mask", "masks/"]])
def test_a_name_that_is_too_long_for_its_output(tmp_path, folder, mga_upscale, option):
    _, part = name_too_long_for_its_output(folder)
    option = [str(tmp_path / word) if word.endswith("/") else word for word in option]
    code, output = mga_upscale(folder, "-o", tmp_path / "out", *option)
    assert code == 1
    assert part in the_line_about("cannot write", output)
    assert [path.split(".")[0] for path in names(tmp_path / "out")] == ["a", "m", "z"]


@pytest.mark.parametrize(
    "error", [KeyError("a key"), RuntimeError("boom"), MemoryError("no room"), AssertionError(), OSError(5, "mine")]
)
@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_any_exception_of_one_image_is_a_line_about_it(tmp_path, folder, mga_upscale, monkeypatch, step, error):
    module, name = {
        "read": (mga.upscaling.work, "read_picture"),
        "compute": (MaskGuidedSR, "upscale"),
        "write": (mga.upscaling.work, "save_image"),
    }[step]
    real = getattr(module, name)

    def fail(*given, **named):
        if any(getattr(one, "format", None) == "JPEG" or str(one).endswith("m.jpg") for one in given):
            raise error
        return real(*given, **named)

    monkeypatch.setattr(module, name, fail)
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == 1
    line = the_line_about(folder / "m.jpg", output)
    if isinstance(error, MemoryError):
        assert "memory ran out (no room)" in line
    else:
        assert type(error).__name__ in line
        assert str(error) in line
    assert names(tmp_path / "out") == ["a.png", "z.png"]
    assert "1 of 3 images failed" in output.err


def test_the_traceback_of_one_image_is_shown_on_request(tmp_path, folder, mga_upscale, monkeypatch):
    monkeypatch.setenv("MGA_DEBUG", "1")
    monkeypatch.setattr(MaskGuidedSR, "upscale", lambda self, photo, **how: 1 / 0)
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == 1
    assert output.err.count("Traceback") == 3
    assert output.err.count("ZeroDivisionError") >= 6


def test_lines_name_the_file_and_the_error(tmp_path):
    file = tmp_path / "a.png"
    assert line_about(file, ImageError(f"{file} is damaged")) == f"{file} is damaged"
    assert line_about(file, InputError("too deep")) == f"{file}: too deep"
    assert line_about(file, OutOfMemoryError("needs 9 GiB")) == f"{file}: needs 9 GiB"
    assert "(ValueError: two lines)" in line_about(file, ValueError("two\nlines"))
    assert "(AssertionError)" in line_about(file, AssertionError())


def test_of_several_inputs_those_that_exist_are_done(tmp_path, folder, mga_upscale):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("a text")
    given = [folder, tmp_path / "none.png", tmp_path / "empty", tmp_path / "text.txt" / "a.png"]
    code, output = mga_upscale(*given, "-o", tmp_path / "out")
    assert code == 1
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]
    assert "does not exist" in the_line_about(tmp_path / "none.png", output)
    assert "no image in the folder" in the_line_about(tmp_path / "empty", output)
    assert "3 of 6 images failed" in output.err
    code, output = mga_upscale(tmp_path / "none.png", tmp_path / "empty", "-o", tmp_path / "other")
    assert code == 1
    assert not (tmp_path / "other").exists()


# Also as root, who may otherwise read everything: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH go, by PR_CAPBSET_DROP.
OBEY_PERMISSIONS = "import ctypes; [ctypes.CDLL(None).prctl(24, capability) for capability in (1, 2)]"


def test_what_may_not_be_read_is_a_line(tmp_path, folder, model_file):
    """A file, a folder that cannot be listed and one whose files cannot be reached, beside others."""
    write(folder / "b.png").chmod(0)
    for name, mode in (("closed", 0), ("listed", 0o400)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"{name}.png")
        (tmp_path / name).chmod(mode)
    inputs = [folder, tmp_path / "closed", tmp_path / "listed", tmp_path / "listed" / "listed.png"]
    code, _, errors = commands.run(
        *("upscale", *inputs, "-o", tmp_path / "out", "--model", model_file), before=OBEY_PERMISSIONS
    )
    if code == 0:
        pytest.skip("this user may read everything")
    for name in ("closed", "listed"):
        (tmp_path / name).chmod(0o700)
    assert code == 1, errors
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]
    for name, lines in (("b.png", 1), ("closed", 1), ("listed.png", 2)):
        assert sum(name in line and "Permission denied" in line for line in errors.splitlines()) == lines, errors
    assert "4 of 7 images failed" in errors


def test_a_full_disk_costs_only_what_does_not_fit(tmp_path, folder, mga_upscale, full_disk):
    write(folder / "large.png", 200, 200)
    full_disk(10_000)
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == 1
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]
    assert output.err.splitlines() == [
        f"mga: {folder}/large.png: cannot write {tmp_path}/out/large.png: {os.strerror(errno.ENOSPC)}",
        "mga: 1 of 4 images failed",
    ]


# Names


@pytest.fixture
def streams(monkeypatch, capsys):
    """The streams of the process become those that are given; returns what was printed to one that can be read."""

    def replace(**given):
        for name, stream in given.items():
            monkeypatch.setattr(sys, name, stream)

    return replace


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "cp1252"])
def test_names_that_stdout_cannot_encode(tmp_path, folder, mga_upscale, streams, encoding):
    for name in (NO_TEXT, "ж雪.png"):
        write(folder / "z.png").rename(folder / name)
    printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    streams(stdout=printed)
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert (code, output.err) == (0, "")
    assert names(tmp_path / "out") == sorted(["a.png", NO_TEXT, "m.jpg", "ж雪.png"])
    out = printed.buffer.getvalue().decode(encoding)
    assert len(out.splitlines()) == 4
    assert r"gr\udcfc\udcdfe.png ->" in out
    assert ("ж雪.png ->" if encoding == "utf-8" else r"\u0436\u96ea.png ->") in out


def test_a_name_that_is_no_text_in_an_error(tmp_path, folder, mga_upscale):
    (folder / NO_TEXT).write_text("a text")
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == 1
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]
    assert "not an image" in the_line_about(r"gr\udcfc\udcdfe.png", output)


def test_a_name_with_control_characters_is_one_line_that_no_terminal_obeys(tmp_path, folder, mga_upscale):
    odd = "b\n\x1b[2J\x9b\u202e"
    write(folder / "z.png").rename(folder / f"{odd}.png")
    (folder / f"{odd}.jpg").write_text("a text")
    (folder / f"{odd}.txt").write_text("a text")
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == 1
    spelled = r"b\n\x1b[2J\x9b\u202e"
    assert not {"\x1b", "\x9b", "\u202e"} & set(output.out + output.err)
    assert sum(f"{spelled}.png ->" in line for line in output.out.splitlines()) == 1
    assert "not an image" in the_line_about(f"{spelled}.jpg", output)
    code, output = mga_upscale(folder / f"{odd}.jpg", "-o", tmp_path / "x.png")
    assert code == 1
    assert output.err.count("\n") == 1


# Streams


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_disk_behind_a_stream_costs_no_image(tmp_path, folder, mga_upscale, streams, stream):
    (folder / "b.png").write_text("a text")
    full = open("/dev/full", "w")
    streams(**{stream: full})
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    full.close()  # what could not be written is no error of closing it
    assert code == 1
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]
    if stream == "stdout":
        assert "b.png" in output.err.splitlines()[0]
        assert output.err.splitlines()[-1] == (
            f"mga: the output of the command could not be written: {os.strerror(errno.ENOSPC)}"
        )
    else:
        assert len(output.out.splitlines()) == 3


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_streams_that_are_not_there(tmp_path, folder, mga_upscale, streams, stream):
    if stream is not None:
        stream.close()
    streams(stdout=stream, stderr=stream)
    code, _ = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == (0 if stream is None else 1)
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]


@pytest.mark.parametrize(("command", "code"), [(["--help"], 1), ([], 2)])
def test_what_cannot_be_printed_is_a_failure_of_every_command(command, code):
    with open("/dev/full", "w") as full:
        got, _, errors = commands.run(*command, stdout=full)
    assert got == code
    assert errors.count("\n") == 1
    assert code == 2 or "could not be written: No space left on device" in errors


def test_a_reader_that_leaves_costs_no_image(tmp_path, folder, mga_upscale, streams):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        streams(stdout=stream)
        code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert (code, output.err) == (141, "")
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]


def test_files_do_not_take_the_place_of_streams_that_are_closed_from_the_start(tmp_path):
    """What is printed by accident would be written into them."""
    program = (
        "import os, sys; from mga.console.process import lasting_streams\n"
        "with lasting_streams():\n"
        "    print('into nothing', flush=True)\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        os.write(1, b'by accident')\n"
        "        file.write(str(file.fileno()))\n"
    )
    path = tmp_path / "file"
    code = subprocess.call(
        commands.after("[os.close(number) for number in range(3)]", [sys.executable, "-c", program, str(path)]),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert code == 0
    assert int(path.read_text()) > 2
