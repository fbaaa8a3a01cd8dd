"""The mga command: what it writes, and one sentence and no output where it cannot."""

import json
import pickle
import signal
import time
import warnings

import numpy as np
import pytest
import torch
from local_originals import compact
from PIL import Image

import mga.upscaling.work
from mga.cli import build_parser, main
from mga_kernels.checkpoints import read_metadata
from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.images import read_image


@pytest.fixture
def photos(tmp_path):
    """A folder of three images, a text and a hidden file."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i, name in enumerate(["a.png", "b.jpg", "c.bmp"]):
        pixels = np.random.default_rng(i).integers(0, 256, (10, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("a text")
    (folder / ".hidden.png").write_text("not looked at")
    return folder


@pytest.fixture
def mga_upscale(model_file, capsys):
    def run(*arguments):
        try:
            code = main(["upscale", "--model", str(model_file), *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr()

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_one_sentence(output, *parts):
    lines = output.err.splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith("mga")
    for part in parts:
        assert part in lines[0]


def test_a_file_becomes_what_the_model_makes_of_it(tmp_path, photos, mga_upscale, model_file):
    code, output = mga_upscale(photos / "a.png", "-o", tmp_path / "out.png", "--k", 4)
    assert code == 0
    assert output.err == ""
    assert output.out.count("\n") == 1
    assert "28x20, K = 4" in output.out
    expected = MaskGuidedSR.from_pretrained(model_file, k=4).upscale(np.asarray(Image.open(photos / "a.png")))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)
    other = MaskGuidedSR.from_pretrained(model_file, k=0).upscale(np.asarray(Image.open(photos / "a.png")))
    assert (expected != other).any()


def test_the_scale_chooses_a_shipped_model(capsys):
    chosen = {
        scale: build_parser("upscale").parse_args(["upscale", "a", "-o", "b", "--scale", str(scale)]).model
        for scale in (2, 3, 4)
    }
    assert {scale: read_metadata(name)["config"].scale for scale, name in chosen.items()} == {2: 2, 3: 3, 4: 4}
    assert build_parser("upscale").parse_args(["upscale", "a", "-o", "b"]).model == chosen[4]
    args = build_parser("upscale").parse_args(["upscale", "a", "-o", "b", "--scale", "2", "--model", "net.pth"])
    assert (args.scale, args.model) == (2, "net.pth")
    with pytest.raises(SystemExit):
        main(["upscale", "a", "-o", "b", "--scale", "5"])
    assert "models ship for 2, 3, 4 times, so --scale 5 needs --model FILE" in capsys.readouterr().err


def test_a_folder_keeps_names_and_formats_and_says_what_it_passed_over(tmp_path, photos, mga_upscale):
    code, output = mga_upscale(photos, "-o", tmp_path / "new" / "out")
    assert code == 0
    assert names(tmp_path / "new" / "out") == ["a.png", "b.jpg", "c.png"]
    assert len(output.out.splitlines()) == 3
    assert_one_sentence(output, "notes.txt")
    for path in (tmp_path / "new" / "out").iterdir():
        assert Image.open(path).size == (28, 20)
    code, _ = mga_upscale(photos / "a.png", photos / "b.jpg", "-o", tmp_path / "webp", "--format", "webp")
    assert code == 0
    assert names(tmp_path / "webp") == ["a.webp", "b.webp"]


def test_mask_pictures(tmp_path, photos, mga_upscale):
    assert mga_upscale(photos / "a.png", "-o", tmp_path / "o.png", "--save-mask", tmp_path / "m.png", "--k", 2)[0] == 0
    mask = np.asarray(Image.open(tmp_path / "m.png"))
    coloured = (mask.max(2).astype(int) - mask.min(2) > 1)[:20]
    assert 0 < coloured.sum() <= 2 * 64
    assert mga_upscale(photos, "-o", tmp_path / "out", "--save-mask", tmp_path / "masks")[0] == 0
    assert names(tmp_path / "masks") == ["a-mask.png", "b-mask.png", "c-mask.png"]


def test_a_photograph_keeps_orientation_profile_and_transparency(tmp_path, mga_upscale):
    pixels = np.random.default_rng(0).integers(1, 256, (6, 9, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "in.png", exif=exif.tobytes(), icc_profile=b"a profile of ours")
    assert mga_upscale(tmp_path / "in.png", "-o", tmp_path / "out.png")[0] == 0
    photo = read_image(tmp_path / "out.png")
    assert photo.rgb.shape == (18, 12, 3)
    assert photo.icc_profile == b"a profile of ours"
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(pixels[..., 3], -1)))
    np.testing.assert_array_equal(photo.alpha, np.asarray(turned.resize((12, 18), Image.Resampling.BICUBIC)))


def test_one_pixel(tmp_path, mga_upscale):
    Image.new("RGB", (1, 1), (10, 200, 30)).save(tmp_path / "dot.png")
    assert mga_upscale(tmp_path / "dot.png", "-o", tmp_path / "out.png")[0] == 0
    assert Image.open(tmp_path / "out.png").size == (2, 2)


def test_a_bad_file_in_a_folder_is_reported_and_the_others_are_done(tmp_path, photos, mga_upscale):
    data = (photos / "a.png").read_bytes()
    (photos / "aa.png").write_bytes(data[: len(data) // 2])
    code, output = mga_upscale(photos, "-o", tmp_path / "out")
    assert code == 1
    assert names(tmp_path / "out") == ["a.png", "b.jpg", "c.png"]
    assert "aa.png is damaged" in output.err
    assert "1 of 4 images failed" in output.err


def bad_file(folder, case):
    path = folder / f"{case}.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif case == "text":
        path.write_text("just a text")
    elif case == "mp4":
        path.write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2")
    elif case == "mkv":
        path.write_bytes(b"\x1a\x45\xdf\xa3\x9fB\x86\x81\1")
    elif case == "zero":
        path.write_bytes(b"")
    elif case == "missing":
        path.unlink()
    elif case == "deep":
        Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(path, "TIFF")
    return path


@pytest.mark.parametrize(
    ("case", "part"),
    [
        ("truncated", "is damaged"),
        ("text", "is not an image of a kind"),
        ("mp4", "is a video and not an image; `mga video` takes videos"),
        ("mkv", "is a video and not an image; `mga video` takes videos"),
        ("zero", "is empty (0 bytes)"),
        ("missing", "does not exist"),
        ("deep", "bits per channel"),
    ],
)
def test_bad_images_end_in_one_sentence(tmp_path, mga_upscale, case, part):
    path = bad_file(tmp_path, case)
    code, output = mga_upscale(path, "-o", tmp_path / "out" / "x.png")
    assert code == 1
    assert_one_sentence(output, str(path), part)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", ["reading", "upscaling"])
def test_image_larger_than_memory(tmp_path, photos, mga_upscale, monkeypatch, step):
    room = 1000 if step == "reading" else 10 * 14 * 12  # enough to read it, not to upscale it
    monkeypatch.setattr("mga_kernels.system.memory.available_memory", lambda: room)
    code, output = mga_upscale(photos / "a.png", "-o", tmp_path / "out.png")
    assert code == 1
    assert_one_sentence(output, step, "14x10", "KiB are available; ")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--k", "-1"], "K is a number of patches, 0 or more, got '-1'"),
        (["--k", "1.5"], "K is a number of patches"),
        (["--fraction", "1.5"], "share of the cells from 0 to 1, got '1.5'"),
        (["--fraction", "-0.1"], "from 0 to 1"),
        (["--fraction", "nan"], "from 0 to 1"),
        (["--k", "1", "--fraction", "0.5"], "not allowed with"),
        (["--format", "bmp"], "invalid choice"),
    ],
)
def test_wrong_arguments(tmp_path, photos, mga_upscale, arguments, part):
    code, output = mga_upscale(photos / "a.png", "-o", tmp_path / "out.png", *arguments)
    assert code == 2
    assert_one_sentence(output, part, "--help")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["--device", "abacus"], "abacus"), (["--dtype", "int3"], "int3"), (["--device", "cuda:99"], "cuda:99")],
)
def test_devices_and_dtypes_that_do_not_exist(tmp_path, photos, mga_upscale, arguments, part):
    code, output = mga_upscale(photos / "a.png", "-o", tmp_path / "out.png", *arguments)
    assert code == 1
    assert_one_sentence(output, part)


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("case", ["pickle", "pickle named safetensors", "other network", "cut", "nowhere"])
def test_models_that_cannot_be_used(tmp_path, photos, model_file, capsys, case):
    model, evidence = tmp_path / "model.safetensors", tmp_path / "it ran"
    if case.startswith("pickle"):
        model = tmp_path / "model.pth" if case == "pickle" else model
        model.write_bytes(pickle.dumps(Bomb(str(evidence))))
    elif case == "other network":
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        with safe_open(model_file, framework="pt") as file:
            metadata = file.metadata()
        metadata["config"] = metadata["config"].replace('"scale": 2', '"scale": 3').replace("fsrcnn", "rfdn")
        metadata["config"] = metadata["config"].replace('"range": 1.0', '"range": 255.0')
        save_file(load_file(model_file), model, metadata)
    elif case == "cut":
        model.write_bytes(model_file.read_bytes()[:-100])
    code = main(["upscale", str(photos / "a.png"), "-o", str(tmp_path / "out.png"), "--model", str(model)])
    assert code == 1
    part = "does not fit" if case == "other network" else "model"
    assert_one_sentence(capsys.readouterr(), part, "model.pth" if case == "pickle" else "model.safetensors")
    assert not evidence.exists()
    assert not (tmp_path / "out.png").exists()


def test_folders_that_cannot_be_written(tmp_path, photos, mga_upscale, monkeypatch):
    (tmp_path / "file").touch()
    before = names(tmp_path)
    for target in ("file/out.png", "file/folder/"):
        code, output = mga_upscale(photos / "a.png", "-o", f"{tmp_path}/{target}")
        assert code == 1
        assert_one_sentence(output, "file")
    real_open = mga.upscaling.work.Path.open

    def refuse(self, mode="r", *args, **kwargs):
        if "x" in mode:
            raise PermissionError(13, "Permission denied")
        return real_open(self, mode, *args, **kwargs)

    monkeypatch.setattr(mga.upscaling.work.Path, "open", refuse)
    code, output = mga_upscale(photos / "a.png", "-o", tmp_path / "out.png")
    assert code == 1
    assert_one_sentence(output, "cannot be written to (Permission denied)")
    assert names(tmp_path) == before


def test_existing_outputs_are_refused_before_anything_runs(tmp_path, photos, mga_upscale):
    out = tmp_path / "out"
    out.mkdir()
    (out / "c.png").write_text("mine")
    code, output = mga_upscale(photos, "-o", out)
    assert code == 1
    assert_one_sentence(output, "c.png", "exists already")
    assert names(out) == ["c.png"]
    assert (out / "c.png").read_text() == "mine"
    assert mga_upscale(photos, "-o", out, "--overwrite")[0] == 0
    assert Image.open(out / "c.png").size == (28, 20)


def test_outputs_that_clash(tmp_path, photos, mga_upscale):
    original = (photos / "a.png").read_bytes()
    Image.new("RGB", (4, 4)).save(photos / "a.bmp")
    before = names(tmp_path)
    cases = [
        ([photos, "-o", tmp_path / "out"], "would both be written"),
        ([photos / "a.png", "-o", photos / "a.png", "--overwrite"], "the input itself"),
        ([photos / "a.png", "-o", photos, "--overwrite"], "the input itself"),
        ([photos / "a.png", photos / "b.jpg", "-o", tmp_path / "x.png"], "need a folder"),
        ([photos / "a.png", "-o", tmp_path / "x.bmp"], "extension .bmp"),
        ([photos / "a.png", "-o", tmp_path / "x.png", "--format", "webp"], "contradicts"),
        ([photos / "a.png", "-o", tmp_path / "x.png", "--save-mask", tmp_path / "x.png"], "both be written"),
        ([photos / "a.png", "-o", tmp_path / "x.png", "--save-mask", photos / "a.png", "--overwrite"], "input itself"),
    ]
    for arguments, part in cases:
        code, output = mga_upscale(*arguments)
        assert code == 1, arguments
        assert_one_sentence(output, part)
    assert names(tmp_path) == before
    assert (photos / "a.png").read_bytes() == original


def test_transparency_that_jpeg_cannot_hold_is_refused_before_the_work(tmp_path, mga_upscale, monkeypatch):
    Image.new("RGBA", (4, 4), (9, 9, 9, 100)).save(tmp_path / "in.png")
    monkeypatch.setattr(MaskGuidedSR, "__call__", lambda *_: pytest.fail("upscaled"))
    code, output = mga_upscale(tmp_path / "in.png", "-o", tmp_path / "out.jpg")
    assert code == 1
    assert_one_sentence(output, "no transparency", "PNG or WebP")
    assert names(tmp_path) == ["in.png"]


def test_ctrl_c_in_a_folder_keeps_what_is_finished(tmp_path, photos, mga_upscale, monkeypatch):
    real, calls = mga.upscaling.work.save_image, []

    def save(image, path, *rest):
        calls.append(path)
        if len(calls) == 4:  # while the second image is being written, after its mask
            raise KeyboardInterrupt
        return real(image, path, *rest)

    monkeypatch.setattr(mga.upscaling.work, "save_image", save)
    code, output = mga_upscale(photos, "-o", tmp_path / "out", "--save-mask", tmp_path / "masks")
    assert code == 130
    assert_one_sentence(output, "interrupted: 1 of 3 images were finished")
    assert names(tmp_path / "out") == ["a.png"]
    assert names(tmp_path / "masks") == ["a-mask.png"]


def test_ctrl_c_while_computing_counts_what_is_written_already(tmp_path, photos, mga_upscale, monkeypatch):
    real, out = MaskGuidedSR.upscale, tmp_path / "out"

    def upscale(self, photo, **how):
        deadline = time.monotonic() + 20
        if photo.format == "BMP":
            while names(out) != ["a.png", "b.jpg"] and time.monotonic() < deadline:
                time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)
        return real(self, photo, **how)

    monkeypatch.setattr(MaskGuidedSR, "upscale", upscale)
    code, output = mga_upscale(photos, "-o", out)
    assert code == 130
    assert_one_sentence(output, "interrupted: 2 of 3 images were finished")
    assert names(out) == ["a.png", "b.jpg"]


def test_a_warning_becomes_a_note_on_its_image(tmp_path, photos, mga_upscale, monkeypatch):
    real = MaskGuidedSR.upscale

    def upscale(self, photo, **how):
        if photo.format == "JPEG":
            warnings.warn("something about this image", stacklevel=1)
        return real(self, photo, **how)

    monkeypatch.setattr(MaskGuidedSR, "upscale", upscale)
    code, output = mga_upscale(photos, "-o", tmp_path / "out")
    assert code == 0
    lines = output.out.splitlines()
    assert len(lines) == 4
    assert lines[2] == "  b.jpg: something about this image"


def test_info_says_what_a_file_is_and_what_runs_it(model_file, tmp_path, capsys):
    torch.save({"params": dict(compact(1)[0])}, tmp_path / "1x.pth")
    assert main(["info", str(model_file), str(tmp_path / "1x.pth")]) == 0
    text = capsys.readouterr().out
    assert f"{model_file}: fsrcnn x2, mask-guided\n  k: 3\n" in text
    assert (
        "1x.pth: compact x1, whole\n  blocks: 3\n  colour: rgb\n  input range: 0..1\n  settings: channels 8\n" in text
    )
    assert text.count("  photographs: ") == 2
    assert main(["info", "--json", "--input-range", "0..255", str(tmp_path / "1x.pth")]) == 0
    facts = json.loads(capsys.readouterr().out)[str(tmp_path / "1x.pth")]
    assert (facts["network"], facts["scale"], facts["whole"], facts["input_range"]) == ("compact", 1, True, "0..255")
    assert facts["parameters"] == sum(tensor.numel() for tensor in compact(1)[0].values())
    assert main(["info", str(tmp_path / "none.pth")]) == 1


def test_info_lists_models_and_backends(model_file, monkeypatch, capsys):
    monkeypatch.setattr("mga.commands.info.shipped_models", lambda: {"tiny-x2": model_file})
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "tiny-x2: fsrcnn x2, p = 4, K = 3" in text
    assert "licence of weights: none" in text
    assert "networks: fsrcnn, pan, rfdn, srresnet, rcan" in text
    assert "select_patches" in text
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["models"]["tiny-x2"]["value_range"] == 1.0
    assert facts["operators"]["paste_patches_"]["reference"] is None
