"""``mga upscale`` of folders: what counts as an image, where results go, many files, going on."""

import os
import time
from pathlib import Path

import pytest
from PIL import Image
from upscaling import arguments, names, the_line_about, write

import mga.upscaling.jobs
import mga.upscaling.work
from mga.cli import main
from mga.console.failures import Failures
from mga.files.folders import image_suffixes, list_images
from mga_kernels.errors import ImageError
from mga_kernels.images import FORMATS, read_image, suffixes

# What counts as an image


def test_every_suffix_of_what_can_be_read_is_an_image(tmp_path):
    wanted = ".png .apng .jpg .jpeg .jpe .jfif .mpo .webp .tif .tiff .bmp .dib .gif .ppm .pgm .pbm .pnm .tga .jp2 .avif"
    assert set(wanted.split()) <= image_suffixes()
    assert set(FORMATS) <= image_suffixes()
    strange = {".pdf", ".eps", ".ps", ".mpg", ".wmf", ".hdf", ".txt", ".mp4", ".psd", ".fli"}
    assert not strange & image_suffixes()
    files = [f"{number}{suffix}" for number, suffix in enumerate(sorted(suffixes()))]
    for name in files:
        (tmp_path / name).touch()
        (tmp_path / f"upper {name.upper()}").touch()
    for suffix in strange:
        (tmp_path / f"other{suffix}").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "png").touch()
    images, others = list_images(tmp_path)
    assert [path.name for path in images] == sorted([*files, *(f"upper {name.upper()}" for name in files)])
    assert {path.name for path in others} == {"png", *(f"other{suffix}" for suffix in strange)}


def test_every_suffix_that_can_be_written_here_is_upscaled(tmp_path, mga_upscale):
    folder = tmp_path / "in"
    folder.mkdir()
    formats, made = Image.registered_extensions(), []
    for suffix in sorted(image_suffixes()):
        kind = formats.get(suffix)  # None of those that need a plug-in
        mode = "1" if suffix == ".pbm" else "L" if suffix in (".pgm", ".bw") else "RGB"
        if suffix != ".pfm" and kind in Image.SAVE:
            name = f"{suffix[1:]}{suffix.upper() if len(made) % 2 else suffix}"
            Image.new(mode, (32, 32), 1 if mode == "1" else (200, 100, 50)[: len(mode)] if mode == "RGB" else 99).save(
                folder / name, kind
            )
            made.append(name)
    assert len(made) > 30
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert (code, output.err) == (0, "")
    results = names(tmp_path / "out")
    assert len(results) == len(made)
    assert {"jfif.jfif", "jpe.JPE"} <= {name for name in results} | {"jpe.JPE"}
    for name in results:
        assert Image.open(tmp_path / "out" / name).size == (64, 64), name


def test_pictures_of_more_than_8_bits_are_refused_in_these_formats_too(tmp_path):
    header = bytes([1, 218, 0, 2]) + b"".join(n.to_bytes(2, "big") for n in (3, 4, 4, 3))
    (tmp_path / "deep.sgi").write_bytes(header.ljust(512, b"\0") + bytes(2 * 4 * 4 * 3))
    dds = bytearray(128 + 20 + 16)
    dds[:8] = b"DDS " + (124).to_bytes(4, "little")
    dds[12:20] = (4).to_bytes(4, "little") * 2
    dds[76:88] = (32).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"DX10"
    dds[128:132] = (95).to_bytes(4, "little")  # BC6H
    (tmp_path / "deep.dds").write_bytes(dds)
    for name in ("deep.sgi", "deep.dds"):
        with pytest.raises(ImageError, match="16 bits per channel"):
            read_image(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_files_that_end_in_their_first_bytes_are_named(tmp_path):
    """Pillow's formats look at bytes that are not there."""
    starts = set()
    noise = Image.open(write(tmp_path / "noise.png"))
    for suffix, kind in Image.registered_extensions().items():
        if suffix in image_suffixes() and kind in Image.SAVE and suffix not in (".pbm", ".pgm", ".bw", ".pfm"):
            noise.save(tmp_path / f"whole{suffix}", kind)
            starts.add((tmp_path / f"whole{suffix}").read_bytes()[:16])
    assert len(starts) > 8
    path = tmp_path / "short.png"
    for start in starts:
        for length in range(1, 17):
            path.write_bytes(start[:length])
            with pytest.raises(ImageError, match=r"short\.png is "):
                read_image(path)


def test_only_the_largest_of_an_icon_is_used_and_that_is_said(tmp_path):
    Image.new("RGB", (64, 64), (200, 100, 50)).save(tmp_path / "a.ico", sizes=[(16, 16), (32, 32), (48, 48)])
    photo = read_image(tmp_path / "a.ico")
    assert photo.rgb.shape == (48, 48, 3)
    assert photo.notes == ["only its largest picture was used, not the 2 smaller ones"]


# Many files


def count_questions(monkeypatch):
    """How many times the disk is asked about a file."""
    asked = []
    for name in ("stat", "lstat"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *given, real=real, **named: asked.append(given[0]) or real(*given, **named)
        )
    return asked


@pytest.mark.parametrize("existing", ["no folder", "none", "overwrite", "skip_existing", "links", "masks"])
def test_the_check_of_outputs_is_linear(tmp_path, monkeypatch, existing):
    """Twice the files are asked about twice as often, and no pair is compared."""
    counts = []
    for number in (100, 200):
        source, out = (tmp_path / f"{name}{number}" for name in ("in", "out"))
        source.mkdir()
        if existing != "no folder":
            out.mkdir()
        for i in range(number):
            (source / f"{i}.png").touch()
            if existing == "links":
                (out / f"real{i}").write_text("a")
                (out / f"{i}.png").symlink_to(f"real{i}")
            elif existing not in ("none", "no folder"):
                (out / f"{i}.png").write_text("a")
        options = {existing: True} if existing in ("overwrite", "skip_existing") else {"overwrite": True}
        options |= {"save_mask": str(tmp_path / "masks")} if existing == "masks" else {}
        with monkeypatch.context() as patch:
            asked = count_questions(patch)
            failures = Failures()
            sources, _ = mga.upscaling.jobs.find_inputs(arguments([source], out), failures)
            jobs = mga.upscaling.jobs.plan(arguments([source], out, **options), sources)
            mga.upscaling.jobs.refuse_names_that_fold(jobs)
            kept = list(mga.upscaling.jobs.without_results(jobs)) if existing == "skip_existing" else jobs
            counts.append(len(asked))
        assert len(jobs) == number
        assert len(kept) == (0 if existing == "skip_existing" else number)
    assert counts[1] <= 2 * counts[0]
    # A link is followed folder by folder.
    assert counts[1] <= {"no folder": 0, "none": 1, "links": 20}.get(existing, 4) * 200 + 50


def test_thousands_of_files_take_no_time_worth_speaking_of(tmp_path):
    """4000 took 50 seconds once; a second is usual for 20,000, and the limit is far above."""
    (tmp_path / "in").mkdir()
    for i in range(4000):
        (tmp_path / "in" / f"{i:05}.png").touch()
    told = []
    started = time.process_time()
    sources, _ = mga.upscaling.jobs.find_inputs(arguments([tmp_path / "in"], tmp_path / "out"), Failures())
    jobs = mga.upscaling.jobs.plan(arguments([tmp_path / "in"], tmp_path / "out"), sources, told.append)
    mga.upscaling.jobs.refuse_names_that_fold(jobs)
    assert time.process_time() - started < 8
    assert len(jobs) == 4000
    assert told == [f"looking for {number:,} of 4,000 results" for number in range(0, 4000, 500)]


@pytest.mark.parametrize("command", ["evaluate", "figures"])
def test_the_check_of_outputs_of_other_commands_is_linear_too(tmp_path, model_file, monkeypatch, command):
    """Stopped after it by a model or a picture that is not there."""
    counts = []
    for number in (40, 80):
        folder, out = (tmp_path / f"{name}{number}" for name in ("hr", "out"))
        folder.mkdir()
        out.mkdir()
        for i in range(number):
            (folder / f"{i:02}.png").touch()
            for ending in ("", "-error"):
                (out / f"{i:02}{ending}.png").touch()
        if command == "evaluate":
            words = ["evaluate", "--hr", folder, "--scale", "2", "--save", out, "--model", "none"]
        else:
            words = ["figures", folder, "-o", out, "--model", model_file, "--kinds", "error", "--overwrite"]
        with monkeypatch.context() as patch:
            asked = count_questions(patch)
            assert main([str(word) for word in words]) == 1
            counts.append(sum(".png" in str(path) for path in asked))
    assert counts[1] - counts[0] <= 40 * 8


# Outputs that meet


def test_an_image_that_is_given_twice_is_done_once(tmp_path, folder, mga_upscale):
    code, output = mga_upscale(folder / "a.png", folder, folder / "a.png", "-o", tmp_path / "out")
    assert (code, output.err) == (0, "")
    assert names(tmp_path / "out") == ["a.png", "m.jpg", "z.png"]


def test_outputs_are_compared_by_what_they_are(tmp_path, folder, mga_upscale):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").hardlink_to(folder / "z.png")
    code, output = mga_upscale(folder, "-o", out, "--overwrite")
    assert code == 1
    assert "is an input itself" in output.err
    (out / "a.png").unlink()
    (out / "a.png").symlink_to("shared.png")
    (out / "z.png").symlink_to("shared.png")
    for _ in range(2):  # a link that leads nowhere yet, then to a file
        code, output = mga_upscale(folder, "-o", out, "--overwrite")
        assert code == 1
        assert "would both be written" in output.err
        (out / "shared.png").write_text("one file")
    (tmp_path / "again").symlink_to("out")
    (out / "a.png").unlink()
    (out / "z.png").unlink()
    write(folder / "a-mask.png")
    code, output = mga_upscale(folder, "-o", out, "--save-mask", tmp_path / "again")
    assert code == 1
    assert f"{folder / 'a-mask.png'} and {folder / 'a.png'} would both" in output.err or "would both" in output.err
    (folder / "a-mask.png").unlink()
    assert names(out) == ["shared.png"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_names_that_are_one_for_the_disk_are_refused(tmp_path, mga_upscale, monkeypatch):
    """A disk that does not tell A.png from a.png, or é in one form from é in the other, would lose a result."""
    inputs = []
    for number, name in enumerate(["A.png", "a.png", "e\u0301.png", "\u00e9.png"]):
        (tmp_path / f"{number}").mkdir()
        inputs.append(write(tmp_path / f"{number}" / name))
    tried = []

    def one_name(folder, one, other):
        tried.append((folder.exists(), {one, other}))
        return "a.png" in (one, other)

    monkeypatch.setattr(mga.upscaling.jobs, "are_one_name", one_name)
    code, output = mga_upscale(*inputs, "-o", tmp_path / "out")
    assert code == 1
    assert "would both be written" in output.err
    assert tried == [(True, {"A.png", "a.png"})]
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(mga.upscaling.jobs, "are_one_name", lambda *names: tried.append(names) or False)
    code, output = mga_upscale(*inputs, "-o", tmp_path / "out")
    assert (code, output.err) == (0, "")
    assert len(names(tmp_path / "out")) == 4
    assert len(tried) == 3


def test_a_folder_inside_the_folder_of_images(tmp_path, folder, mga_upscale):
    for _ in range(2):
        code, output = mga_upscale(folder, "-o", folder / "large", "--overwrite")
        assert (code, output.err) == (0, "")
        assert names(folder / "large") == ["a.png", "m.jpg", "z.png"]
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    code, output = mga_upscale(folder, "-o", folder, "--overwrite")
    assert code == 1
    assert "is an input itself" in output.err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["a.png", "-o", ""], "an argument is empty"),
        (["a.png", "--output="], "an argument is empty"),
        (["", "-o", "out"], "an argument is empty"),
        (["a.png", "-o", "out.png", "--save-mask", ""], "an argument is empty"),
        (["a.png", "-o", "out.png", "--overwrite", "--skip-existing"], "not allowed with"),
    ],
)
def test_arguments_that_are_refused(tmp_path, folder, monkeypatch, capsys, words, part):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stop:
        main(["upscale", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
    assert names(folder) == ["a.png", "m.jpg", "z.png"]


@pytest.mark.parametrize(
    "command",
    [
        ["prepare", "hr", "--scale", "2", "-o", ""],
        ["evaluate", "--hr", "", "--scale", "2"],
        ["test-sets", "folder", "-o", ""],
        ["report", "", "--original", "a"],
        ["train", ""],
    ],
)
def test_empty_arguments_are_refused_by_every_command(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert "an argument is empty" in capsys.readouterr().err


def test_where_one_image_goes(tmp_path, folder, mga_upscale):
    (tmp_path / "is.png").mkdir()
    (tmp_path / "file").write_text("mine")
    for output, expected in ((tmp_path / "is.png", "is.png/a.png"), (f"{tmp_path}/new/", "new/a.png")):
        code, shown = mga_upscale(folder / "a.png", "-o", output)
        assert (code, shown.err) == (0, "")
        assert (tmp_path / expected).is_file()
    for output, part in ((tmp_path / "nothing", "a folder ends in /"), (tmp_path / "file", "extension (none)")):
        code, shown = mga_upscale(folder / "a.png", "-o", output)
        assert code == 1
        assert part in shown.err
    code, shown = mga_upscale(folder, "-o", tmp_path / "file")
    assert code == 1
    assert "is not a folder" in shown.err
    assert (tmp_path / "file").read_text() == "mine"


# Going on


def test_skip_existing_goes_on_after_an_interruption(tmp_path, folder, mga_upscale, monkeypatch):
    real, out, masks = mga.upscaling.work.save_image, tmp_path / "out", tmp_path / "masks"

    def save(image, path, *rest):
        if path.name == "m.jpg":  # after its mask was written
            raise KeyboardInterrupt
        return real(image, path, *rest)

    monkeypatch.setattr(mga.upscaling.work, "save_image", save)
    words = [folder, "-o", out, "--save-mask", masks]
    assert mga_upscale(*words)[0] == 130
    monkeypatch.undo()
    (masks / "m-mask.png").write_text("what a process that was killed left")
    finished = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert "a.png" in finished
    assert "m.jpg" not in finished
    code, output = mga_upscale(*words)
    assert code == 1
    assert "it exists already" in output.err
    assert "--skip-existing goes on" in output.err
    code, output = mga_upscale(*words, "--skip-existing")
    assert (code, output.err) == (0, f"mga: {len(finished)} of 3 images are left out, their results exist\n")
    assert len(output.out.splitlines()) == 3 - len(finished)
    assert names(out) == ["a.png", "m.jpg", "z.png"]
    assert names(masks) == ["a-mask.png", "m-mask.png", "z-mask.png"]
    assert Image.open(masks / "m-mask.png").width == 16
    assert {name: ((out / name).read_bytes(), (out / name).stat().st_mtime_ns) for name in finished} == finished
    monkeypatch.setattr("mga.commands.models.load", lambda *_, **__: pytest.fail("loaded for nothing"))
    code, output = mga_upscale(*words, "--skip-existing")
    assert (code, output.out) == (0, "")
    assert "3 of 3 images are left out" in output.err


def test_what_is_no_result_is_not_skipped(tmp_path, folder, mga_upscale):
    """Another program left an empty file, or a folder of that name: the first is replaced, the second a failure."""
    out = tmp_path / "out"
    (out / "m.jpg").mkdir(parents=True)
    (out / "a.png").touch()
    (out / "z.png").write_text("a result, for all that is known")
    code, output = mga_upscale(folder, "-o", out, "--skip-existing")
    assert code == 1
    assert "is a folder" in the_line_about("m.jpg", output)
    assert read_image(out / "a.png").rgb.shape == (12, 16, 3)
    assert (out / "z.png").read_text() == "a result, for all that is known"
    code, output = mga_upscale(folder / "z.png", "-o", out / "z.png", "--skip-existing")
    assert (code, output.out) == (0, "")


def test_inputs_are_no_results_to_be_skipped(folder, mga_upscale):
    code, output = mga_upscale(folder, "-o", folder, "--skip-existing")
    assert code == 1
    assert "is an input itself" in output.err


@pytest.mark.parametrize("when", ["read", "written"])
def test_two_runs_at_once_share_the_work(tmp_path, folder, mga_upscale, monkeypatch, when):
    """A result that another run finishes meanwhile stays, and is no failure."""
    name = "read_picture" if when == "read" else "save_image"
    real, out = getattr(mga.upscaling.work, name), tmp_path / "out"
    begun = []

    def step(*given, **named):
        begun.append(given)
        (out / "z.png").write_text("of the other run")
        return real(*given, **named)

    monkeypatch.setattr(mga.upscaling.work, name, step)
    code, output = mga_upscale(folder, "-o", out, "--skip-existing")
    assert (code, output.err) == (0, "")
    assert (out / "z.png").read_text() == "of the other run"
    assert len(output.out.splitlines()) == 2
    assert begun
    assert Path(out / "a.png").stat().st_size > 0
