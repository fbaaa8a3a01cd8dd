"""``mga upscale --recursive``: a tree of folders in, the same tree out."""

from __future__ import annotations

import os

import pytest
from PIL import Image
from upscaling import write

import mga.upscaling.work


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "in"
    for name in ("b.png", "a/b.png", "a/deep/c.jpg", "z/b.png", ".hidden/d.png", "empty/note.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("a text") if name.endswith(".txt") else write(root / name)
    return root


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


WANTED = ["a/b.png", "a/deep/c.jpg", "b.png", "z/b.png"]


def test_the_tree_is_kept(tmp_path, tree, mga_upscale):
    code, output = mga_upscale(tree, "-o", tmp_path / "out", "--recursive", "--save-mask", tmp_path / "masks")
    assert code == 0
    assert files(tmp_path / "out") == WANTED
    assert files(tmp_path / "masks") == ["a/b-mask.png", "a/deep/c-mask.png", "b-mask.png", "z/b-mask.png"]
    assert Image.open(tmp_path / "out" / "a" / "deep" / "c.jpg").size == Image.open(tmp_path / "out" / "b.png").size
    assert output.err == "mga: not images by their names, so not upscaled: note.txt\n"
    code, output = mga_upscale(tree, "-o", tmp_path / "flat")
    assert (code, files(tmp_path / "flat")) == (0, ["b.png"])


def test_results_inside_the_folder_are_not_inputs(tree, mga_upscale):
    for _ in range(2):
        code, output = mga_upscale(tree, "-o", tree / "large", "--recursive", "--skip-existing")
        assert code == 0, output.err
    assert files(tree / "large") == WANTED
    assert "4 of 4 images are left out" in output.err


def test_links_to_folders_are_not_followed(tmp_path, tree, mga_upscale):
    (tree / "a" / "up").symlink_to(tree)
    code, _ = mga_upscale(tree, "-o", tmp_path / "out", "--recursive")
    assert (code, files(tmp_path / "out")) == (0, WANTED)


def test_a_folder_that_cannot_be_read_is_a_line(tmp_path, tree, mga_upscale, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith(f"{os.sep}z"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, output = mga_upscale(tree, "-o", tmp_path / "out", "--recursive")
    assert code == 1
    assert files(tmp_path / "out") == WANTED[:3]
    assert output.err.count(f"{tree / 'z'} cannot be read as a folder (Permission denied)") == 1
    assert "1 of 4 images failed" in output.err


def test_a_tree_without_an_image(tmp_path, mga_upscale):
    (tmp_path / "in" / "a").mkdir(parents=True)
    code, output = mga_upscale(tmp_path / "in", "-o", tmp_path / "out", "--recursive")
    assert code == 1
    assert "there is no image in the folder" in output.err
    assert "or those in it" in output.err
    code, output = mga_upscale(tmp_path / "in", "-o", tmp_path / "out")
    assert "--recursive searches subfolders, too" in output.err
    assert not (tmp_path / "out").exists()


def test_equal_names_of_two_folders_meet(tmp_path, tree, mga_upscale):
    code, output = mga_upscale(tree / "a", tree / "z", "-o", tmp_path / "out", "--recursive")
    assert code == 1
    assert "would both be written to" in output.err
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_named_twice_is_done_once_at_its_first_place(tmp_path, tree, mga_upscale):
    code, _ = mga_upscale(tree / "a", tree / "a" / "deep", "-o", tmp_path / "out", "--recursive")
    assert (code, files(tmp_path / "out")) == (0, ["b.png", "deep/c.jpg"])


# Lists


def test_what_failed_is_a_list_that_can_be_run_again(tmp_path, tree, mga_upscale):
    for name in ("a/deep/bad.png", "bad\n.png", "z/b.png"):
        (tree / name).write_text("a text")
    code, output = mga_upscale(tree, "-o", tmp_path / "out", "--recursive", "--failures", tmp_path / "failed")
    assert code == 1
    good = [name for name in WANTED if name != "z/b.png"]
    assert files(tmp_path / "out") == good
    again = ["--from", tmp_path / "failed", "-o", tmp_path / "out", "--failures", tmp_path / "failed"]
    code, output = mga_upscale(*again)
    assert (code, output.err.count("not an image")) == (1, 3)
    for name in ("a/deep/bad.png", "bad\n.png", "z/b.png"):
        write(tree / name)
    assert mga_upscale(*again)[0] == 0
    assert files(tmp_path / "out") == sorted([*good, "a/deep/bad.png", "bad\n.png", "z/b.png"])
    assert (tmp_path / "failed").read_bytes() == b""
    assert mga_upscale(*again)[0] == 0


def entries(listed):
    return sorted(os.path.normpath(line) for line in listed.read_text().splitlines())


def test_a_list_loses_nothing_when_a_run_is_broken_off(tmp_path, tree, mga_upscale, monkeypatch):
    (tree / "a" / "bad.png").write_text("a text")
    listed = tmp_path / "list"
    listed.write_text("".join(f"{tree}/./{name}\n" for name in ("a/bad.png", *WANTED)))
    arguments = ["--from", listed, "--failures", listed, "-o", tmp_path / "out"]
    before = entries(listed)
    assert mga_upscale(*arguments, "--format", "png", "--scale", "9")[0] == 1  # refused once the model is there
    assert entries(listed) == before
    (tmp_path / "out").write_text("in the way")
    assert mga_upscale(*arguments)[0] == 1
    assert entries(listed) == before
    (tmp_path / "out").unlink()
    write_job = mga.upscaling.work.write_job

    def interrupted(work, *rest):
        if work.job.target.name == "c.jpg":
            raise KeyboardInterrupt
        return write_job(work, *rest)

    monkeypatch.setattr(mga.upscaling.work, "write_job", interrupted)
    assert mga_upscale(*arguments)[0] == 130
    left = {os.path.relpath(path, tree) for path in entries(listed)}
    assert {"a/bad.png", "a/deep/c.jpg"} <= left
    assert left | set(files(tmp_path / "out")) == {"a/bad.png", *WANTED}
    monkeypatch.undo()
    assert mga_upscale(*arguments)[0] == 1
    assert listed.read_text() == f"{tree}/./a/bad.png\n"
    assert files(tmp_path / "out") == WANTED


def test_a_folder_that_failed_is_run_again_where_it_belongs(tmp_path, tree, mga_upscale, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith(f"{os.sep}deep"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert mga_upscale(tree, "-o", tmp_path / "out", "--recursive", "--failures", tmp_path / "failed")[0] == 1
    assert (tmp_path / "failed").read_text() == f"{tree}/./a/deep\n"
    assert mga_upscale("--from", tmp_path / "failed", "-o", tmp_path / "out")[0] == 0
    assert files(tmp_path / "out") == WANTED


def test_lists_of_others(tmp_path, tree, mga_upscale, monkeypatch):
    monkeypatch.chdir(tree)
    (tmp_path / "list").write_bytes(b"b.png\r\n\n./a/./deep/c.jpg\nz\n")
    code, output = mga_upscale("--from", tmp_path / "list", "-o", tmp_path / "out")
    assert code == 1
    assert "b.png and z/b.png would both be written to" in output.err
    (tmp_path / "list").write_bytes(b"b.png\0a/./deep/c.jpg\0./z/./b.png\0")
    code, output = mga_upscale("--from", tmp_path / "list", "-o", tmp_path / "out")
    assert code == 1  # the last is b.png, too
    (tmp_path / "list").write_bytes(b"b.png\0a/./deep/c.jpg\0")
    assert mga_upscale("--from", tmp_path / "list", "-o", tmp_path / "out")[0] == 0
    assert files(tmp_path / "out") == ["b.png", "deep/c.jpg"]


@pytest.mark.parametrize(
    ("listed", "part"),
    [(None, "cannot be read (No such file"), (b"a/./../b.png\n", "would not be below the folder of results")],
)
def test_lists_that_cannot_be_used(tmp_path, tree, mga_upscale, listed, part):
    if listed is not None:
        (tmp_path / "list").write_bytes(listed)
    code, output = mga_upscale("--from", tmp_path / "list", "-o", tmp_path / "out")
    assert code == 1
    assert part in output.err
    assert output.err.count("\n") == 1
    code, output = mga_upscale("-o", tmp_path / "out")
    assert code == 1
    assert "name images or folders, or a list of them with --from" in output.err
    code, output = mga_upscale(tree, "-o", tmp_path / "out", "--failures", tree / "b.png")
    assert code == 1
    assert "is the name of an image, and it would be a text" in output.err
    assert not (tmp_path / "out").exists()


def test_a_list_of_failures_that_cannot_be_written_is_said_before_the_work(tmp_path, tree, mga_upscale):
    """Not after a night of it. It may lie in the folder of results, which is made for it."""
    nowhere = tmp_path / "nowhere"
    code, output = mga_upscale(tree, "-o", tmp_path / "out", "--failures", nowhere / "failed")
    assert (code, output.out) == (1, "")
    assert output.err == f"mga: cannot write {nowhere}/failed: the folder {nowhere} does not exist; create it first\n"
    assert not (tmp_path / "out").exists()
    assert mga_upscale(tree, "-o", tmp_path / "new", "--failures", tmp_path / "new/failed")[0] == 0
    assert (tmp_path / "new/failed").read_bytes() == b""
