"""Training sets: `mga prepare`, packs and crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from packs_made import make_pack
from pictures import save_smooth_picture
from PIL import Image
from safetensors.numpy import save_file

from mga.cli import build_parser, main
from mga.commands.options import filled
from mga.evaluation.resize import shrink_for_scale
from mga.training import packs, sub_images
from mga.training.packs import Crops, open_pack, oriented, write_pack
from mga.training.sub_images import bicubic_error
from mga_kernels.errors import ImageError, InputError

IMAGE = np.zeros((8, 8, 3), np.uint8)
PAIR = IMAGE, IMAGE[::2, ::2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two smooth pictures in hr/, and their pack."""
    make_pack(tmp_path)
    return tmp_path


def test_a_pack_holds_sub_images_and_their_lr_images(folder):
    pairs = open_pack(folder / "train.safetensors", 2)
    hr = np.asarray(Image.open(folder / "hr/a.png"))
    assert [pair[0].shape for pair in pairs] == [(72, 88, 3), (64, 80, 3)]
    assert np.array_equal(pairs[0][0], hr)
    assert np.array_equal(pairs[0][1], shrink_for_scale(hr, 2)[1])


def test_prepare_cuts_tiles_and_takes_given_lr_images(folder):
    (folder / "lr").mkdir()
    for name in "ab":
        hr = np.asarray(Image.open(folder / f"hr/{name}.png"))
        Image.fromarray(255 - shrink_for_scale(hr, 2)[1]).save(folder / f"lr/{name}x2.png")
    target = folder / "tiles.safetensors"
    arguments = ["prepare", str(folder / "hr"), "-o", str(target), "--scale", "2", "--tile", "32"]
    assert main([*arguments, "--lr", str(folder / "lr")]) == 0
    pairs = open_pack(target, 2)
    assert len(pairs) == 2 * 2 + 2 * 2
    hr = np.asarray(Image.open(folder / "hr/a.png"))
    assert np.array_equal(pairs[3][0], hr[32:64, 32:64])
    assert np.array_equal(pairs[3][1], 255 - shrink_for_scale(hr, 2)[1][16:32, 16:32])
    assert main(arguments) == 1, "it exists"
    assert main([*arguments, "--overwrite", "--shrink", "2", "--only", "1", "--every", "1"]) == 0
    assert [pair[0].shape for pair in open_pack(target, 2)] == [(32, 32, 3)]


def test_prepare_keeps_the_share_that_bicubic_restores_worst(folder):
    rng = np.random.default_rng(1)
    detail = np.asarray(Image.open(folder / "hr/a.png")).copy()
    detail[32:64, :32] = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(detail).save(folder / "hr/a.png")
    target = folder / "hard.safetensors"
    arguments = ["prepare", str(folder / "hr"), "-o", str(target), "--scale", "2", "--tile", "32", "--overwrite"]

    def kept(share: str) -> list[tuple[np.ndarray, np.ndarray]]:
        assert main([*arguments, "--hardest", share]) == 0
        return open_pack(target, 2)

    tiles = kept("1")
    errors = [bicubic_error(*pair) for pair in tiles]
    (hardest,) = kept("0.01")
    assert np.array_equal(hardest[0], detail[32:64, :32])
    assert np.array_equal(hardest[1], shrink_for_scale(detail, 2)[1][16:32, :16])
    half = kept("0.5")
    assert sorted(bicubic_error(*pair) for pair in half) == sorted(errors)[len(tiles) // 2 :]


def test_prepare_names_what_is_wrong(folder, capsys):
    target = folder / "new.safetensors"
    (folder / "lr").mkdir()
    Image.new("RGB", (10, 10)).save(folder / "lr/a.png")
    arguments = ["prepare", str(folder / "hr"), "-o", str(target), "--scale", "2"]
    for more, message in (
        (["--lr", str(folder / "lr")], "10x10, which at scale 2 is not the size of"),
        (["--tile", "33"], "not a multiple of the scale"),
        (["--skip", "2"], "too few"),
        (["--step", "17"], "--step 17 is not a multiple of the scale"),
        (["--every", "0"], "--every must be 1 or more"),
        (["--shrink", "2", "0"], "--shrink must be 1 or more, got 0"),
        (["--shrink", "2", "2"], "--shrink has a number twice"),
        (["--shrink", "64"], "b.png is 2x1 at 1/64 of its size, too small for x2"),
        (["--hardest", "0"], "--hardest must be more than 0"),
        (["--hardest", "nan"], "--hardest must be more than 0"),
    ):
        assert main([*arguments, *more]) == 1
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["hr", "lr", "train.safetensors"]
    (folder / "lr/a.png").unlink()
    with pytest.raises(ImageError, match="no LR image"):
        list(filled(sub_images.Cutting, _parsed([*arguments, "--lr", str(folder / "lr")])).sub_images())


def _parsed(words: list[str]):
    return build_parser("prepare").parse_args(words)


def test_files_that_are_no_packs_are_refused(tmp_path, folder):
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="is not a pack"):
        open_pack(tmp_path / "text.safetensors", 2)
    with pytest.raises(InputError, match="there is no pack"):
        open_pack(tmp_path / "nothing", 2)
    with pytest.raises(InputError, match="holds pairs of scale 2"):
        open_pack(folder / "train.safetensors", 4)
    for images, message in (
        ({}, "holds no pairs"),
        ({"hr/a": IMAGE}, "is not a pack: File does not contain tensor lr/a"),
        ({"hr/a": IMAGE, "lr/a": IMAGE}, "which is not scale 2"),
        ({"hr/a": IMAGE, "lr/a": IMAGE[0, ::2]}, r"LR image is uint8 \(4, 3\), which is not uint8 \(H, W, 3\)"),
        ({"hr/a": IMAGE[:0], "lr/a": IMAGE[:0]}, "HR image is uint8"),
        ({"hr/a": IMAGE / 255, "lr/a": IMAGE[::2, ::2]}, "HR image is float64"),
    ):
        arrays = {name: np.ascontiguousarray(image) for name, image in images.items()}
        save_file(arrays, tmp_path / "wrong.safetensors", {"scale": "2"})
        with pytest.raises(InputError, match=message):
            open_pack(tmp_path / "wrong.safetensors", 2)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a", PAIR), ("b", PAIR), ("a", PAIR)], "two pairs called a; rename"),
        ([("a", PAIR), ("b\udce9", PAIR)], r"'b\\udce9', a name that is no UTF-8"),
        ([("a", PAIR), ("b", (IMAGE, IMAGE))], r"cannot hold b: it has HR \(8, 8, 3\) and LR \(8, 8, 3\)"),
        ([("a", PAIR), ("b", (IMAGE[:0], IMAGE[:0]))], r"cannot hold b: its HR image is uint8 \(0, 8, 3\)"),
        ([("a", (IMAGE[:, :0], IMAGE[::2, :0]))], "cannot hold a: its HR image"),
        ([("a", (IMAGE[..., 0], IMAGE[::2, ::2, 0]))], "cannot hold a: its HR image"),
        ([("a", (IMAGE / 255, IMAGE[::2, ::2] / 255))], "cannot hold a: its HR image is float64"),
        ([], "there is nothing to write"),
    ],
    ids=["twice", "no text", "scale", "empty", "narrow", "grey", "floats", "nothing"],
)
def test_what_could_not_be_read_is_not_written(tmp_path, pairs, message):
    with pytest.raises(InputError, match=message):
        write_pack(tmp_path / "new.safetensors", pairs, 2)
    assert not list(tmp_path.iterdir())
    write_pack(tmp_path / "new.safetensors", [("before", PAIR)], 2)
    before = (tmp_path / "new.safetensors").read_bytes()
    with pytest.raises(InputError, match=message):
        write_pack(tmp_path / "new.safetensors", pairs, 2)
    assert (tmp_path / "new.safetensors").read_bytes() == before


def test_more_names_than_a_file_can_have_are_refused_in_time(tmp_path, monkeypatch):
    drawn = []
    many = ((f"{number}", (drawn.append(number), PAIR)[1]) for number in range(1000))
    monkeypatch.setattr(packs, "LARGEST_HEADER", 20_000)
    with pytest.raises(InputError, match=r"pairs are more than .* may hold; make several packs"):
        write_pack(tmp_path / "new.safetensors", many, 2)
    assert 50 < len(drawn) < 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["", "hr/hr/", 'a b\n"c\\', "\0", "\N{SNOWMAN}\N{GRINNING FACE}", "__metadata__", "x" * 5000]
)
def test_any_other_name_can_be_read_again(tmp_path, name):
    assert write_pack(tmp_path / "new.safetensors", [("first", PAIR), (name, (255 - IMAGE, PAIR[1]))], 2) == 2
    assert sorted(hr.sum() for hr, _ in open_pack(tmp_path / "new.safetensors", 2)) == [0, 255 * IMAGE.size]


def test_writing_a_pack_touches_no_other_file(tmp_path):
    """Whether it is written or not: a file of that name once was taken for its own, and deleted."""
    others = [tmp_path / f"new.safetensors{end}" for end in (".body", ".part", ".tmp", "~")]
    for path in others:
        path.write_text("of somebody else")
    with pytest.raises(InputError):
        write_pack(tmp_path / "new.safetensors", [("a", PAIR), ("a", PAIR)], 2)
    write_pack(tmp_path / "new.safetensors", [("a", PAIR)], 2)
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "new.safetensors"])
    assert {path.read_text() for path in others} == {"of somebody else"}
    assert len(open_pack(tmp_path / "new.safetensors", 2)) == 1


def test_what_is_wrong_with_an_image_is_not_said_of_the_pack(tmp_path):
    def pairs():
        yield "a", PAIR
        raise PermissionError(13, "Permission denied", "image.png")

    with pytest.raises(PermissionError):
        write_pack(tmp_path / "new.safetensors", pairs(), 2)
    with pytest.raises(InputError, match=r"cannot write .*no/new.safetensors: No such file or directory"):
        write_pack(tmp_path / "no/new.safetensors", pairs(), 2)


@pytest.mark.parametrize("second", ["one/HR/a.jpg", "two/HR/a.png"])
def test_images_of_one_name_are_refused_before_they_are_read(tmp_path, capsys, monkeypatch, second):
    for path in (tmp_path / "one/HR/a.png", tmp_path / second):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_smooth_picture(path, 16, 16, 0)
    monkeypatch.setattr(sub_images, "read_image", lambda path: pytest.fail(f"{path} was read"))
    folders = dict.fromkeys(str(path.parent) for path in (tmp_path / "one/HR/a.png", tmp_path / second))
    assert main(["prepare", *folders, "-o", str(tmp_path / "new.safetensors"), "--scale", "2"]) == 1
    error = capsys.readouterr().err
    assert "one/HR/a." in error
    assert second in error
    assert "the same name in the pack, HR/a; rename" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"one", second.split("/")[0]})


def test_crops_are_aligned_turned_together_and_repeatable(folder):
    pairs = open_pack(folder / "train.safetensors", 2)
    crops = Crops([pairs], 2, 16, 6, seed=3)
    lr, hr = crops(5)
    assert lr.shape == (6, 3, 16, 16)
    assert hr.shape == (6, 3, 32, 32)
    again = Crops([pairs], 2, 16, 6, seed=3).make(5)
    assert torch.equal(again[0], lr)
    assert torch.equal(crops(6)[1], Crops([pairs], 2, 16, 6, seed=3).make(6)[1]), "made ahead"
    assert not torch.equal(crops.make(7)[0], lr)
    found = set()
    for small, large in zip(lr, hr, strict=True):
        found.add(_place(pairs, small, large))
    assert len({turn for _, _, _, turn in found}) > 1
    parts = [Crops([pairs], 2, 16, 6, 3, rank, 3).make(5)[0] for rank in range(3)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), lr)
    assert torch.equal(Crops([pairs], 2, 16, 6, 3, 1, 3).make(5, whole=True)[0], lr)


def _place(pairs, small: torch.Tensor, large: torch.Tensor) -> tuple[int, int, int, int]:
    """Image, row, column and orientation of a crop, LR and HR of which must agree."""
    small, large = ((t.permute(1, 2, 0) * 255).round().byte().numpy() for t in (small, large))
    for number, (hr, lr) in enumerate(pairs):
        for y in range(lr.shape[0] - 15):
            for x in range(lr.shape[1] - 15):
                for turn in range(8):
                    if np.array_equal(oriented(lr[y : y + 16, x : x + 16], turn), small):
                        assert np.array_equal(oriented(hr[2 * y : 2 * y + 32, 2 * x : 2 * x + 32], turn), large)
                        return number, y, x, turn
    raise AssertionError("no crop of these images")


def test_bytes_travel_to_another_device(folder, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.dtype) or tensor)
    crops = Crops([open_pack(folder / "train.safetensors", 2)], 2, 16, 6, seed=3, device="meta")
    for number in (0, 1):
        lr, hr = crops(number)
        assert (lr.device.type, lr.dtype, lr.shape) == ("meta", torch.float32, (6, 3, 16, 16))
        assert hr.is_contiguous(memory_format=torch.channels_last)
    crops.pool.shutdown()
    assert pinned == [torch.uint8] * 6, "the batch after the next is being made"
