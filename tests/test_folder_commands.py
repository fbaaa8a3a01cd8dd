"""Folders given to other commands than ``mga upscale``: what cannot be read is named, and nothing is waited for."""

import json
import signal
from types import SimpleNamespace

import pytest
from test_failures import NO_TEXT, device, endless_link, lost_link, pipe
from upscaling import names, write

from mga.cli import main
from mga_kernels.errors import ImageError


@pytest.fixture
def _soon():
    """Waiting for a pipe that nobody fills would take for ever."""

    def late(number, frame):
        pytest.fail("it waits")  # which is no Exception, so that nothing takes it for an error of the file

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("fault", [pipe, lost_link, device, endless_link])
@pytest.mark.parametrize("command", ["evaluate", "sets", "complexity", "prepare", "figures", "test-sets", "report"])
def test_what_is_no_file_is_named_by_every_command(tmp_path, model_file, monkeypatch, capsys, command, fault):
    """It is neither waited for nor passed over: a mean, or a training set, would be another without a word."""
    folder = tmp_path / "sets" / "one"
    folder.mkdir(parents=True)
    name, _ = fault(folder)
    if command == "test-sets":
        (folder / name).rename(folder / "1201.png")
        name = "1201.png"
        monkeypatch.setattr("mga.evaluation.div8k.SETS", {"Test2K": (range(1200, 1203), 4)})
        for number in (1200, 1202):
            write(folder / f"{number}.png", 40, 40)
    else:
        write(folder / "c.png", 40, 40)
    words = {
        "evaluate": ["evaluate", "--model", model_file, "--hr", folder, "--scale", 2],
        "sets": ["evaluate", "--model", model_file, "--sets", tmp_path / "sets", "--scale", 2],
        "complexity": ["complexity", "--images", folder, "--network", "fsrcnn", "--scale", 2],
        "prepare": ["prepare", folder, "-o", tmp_path / "pack.safetensors", "--scale", 2],
        "figures": ["figures", folder, "-o", tmp_path / "out", "--model", model_file],
        "test-sets": ["test-sets", folder, "-o", tmp_path / "made", "--only", "Test2K"],
        "report": ["report", model_file, "--original", model_file, "--images", folder, "-o", tmp_path / "page.html"],
    }[command]
    if command == "report":
        monkeypatch.setattr("mga.report.write._configs", lambda *_: (SimpleNamespace(scale=2), None))
    assert main([str(word) for word in words]) == 1
    errors = capsys.readouterr().err
    assert name in errors
    assert "Traceback" not in errors


@pytest.fixture
def _three(monkeypatch):
    monkeypatch.setattr(
        "mga.evaluation.div8k.SETS", {"Test2K": (range(1201, 1204), 4), "Test4K": (range(1204, 1205), 2)}
    )


@pytest.mark.usefixtures("_three")
def test_sets_are_made_of_what_can_be_read_and_go_on(tmp_path, capsys):
    source, made = tmp_path / "div8k", tmp_path / "sets"
    source.mkdir()
    for number in range(1201, 1205):
        write(source / f"{number}.png", 40, 48)
    good = (source / "1202.png").read_bytes()
    (source / "1202.png").write_bytes(good[:100])
    words = ["test-sets", str(source), "-o", str(made)]
    assert main(words) == 1
    errors = capsys.readouterr().err
    assert "1202.png is damaged" in errors
    assert "1 of 4 images failed" in errors
    assert names(made / "Test2K/HR") == ["1201.png", "1203.png"]
    assert names(made / "Test4K/HR") == ["1204.png"]
    (source / "1202.png").write_bytes(good)
    assert main(words) == 0
    assert names(made / "Test2K/HR") == ["1201.png", "1202.png", "1203.png"]


def test_a_conversion_learns_from_the_images_that_can_be_read(tmp_path, capsys):
    from mga.conversion.pictures import read_pairs

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        write(folder / f"{i}.png", 40, 48)
    (folder / "3.png").write_bytes(b"no image")
    train, held_out = read_pairs(folder, 2, 16, True)
    assert [len(group) for group in train] == [4]
    assert len(held_out) == 1
    assert f"mga: {folder / '3.png'} is not an image" in capsys.readouterr().err
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"^convert: .*0.png is not an image"):
        read_pairs(folder, 2, 16, True)


def test_a_table_names_folders_that_are_no_text(tmp_path, model_file, capsys):
    folder = tmp_path / "sets" / NO_TEXT.removesuffix(".png")
    folder.mkdir(parents=True)
    write(folder / NO_TEXT, 40, 40)
    words = ["--model", model_file, "--sets", tmp_path / "sets", "--scale", "2", "--variant", "base"]
    files = ["-o", tmp_path / "table.md", "--json", tmp_path / "figures.json"]
    assert main(["evaluate", *map(str, words + files)]) == 0
    assert r"gr\udcfc\udcdfe" in (tmp_path / "table.md").read_text()
    assert r"gr\udcfc\udcdfe" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())["rows"][-1]
    assert folder.name in figures["sets"]
