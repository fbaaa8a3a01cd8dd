"""``mga complexity``: one size, settings, folders, networks of one's own, and what is refused."""

import json

import pytest
from network_zoo import example_registered
from PIL import Image

from mga.cli import main
from mga.complexity import NetworkCosts
from mga_kernels.checkpoints import load_model
from mga_kernels.networks import ModelConfig


@pytest.fixture
def mga_complexity(capsys):
    def run(*arguments):
        try:
            code = main(["complexity", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr()

    return run


def test_one_size(tmp_path, mga_complexity):
    file = tmp_path / "figures.json"
    code, output = mga_complexity("--network", "rfdn", "--scale", 4, "--size", "255x190", "--k", 7, "--json", file)
    assert code == 0
    figures = json.loads(file.read_text())
    expected = NetworkCosts(ModelConfig("rfdn", 4)).cost("masked", 252, 188, 7)
    assert figures == {
        "network": "rfdn",
        "scale": 4,
        "variant": "masked",
        "split": [4, 2],
        "patch_size": 4,
        "mask_classes": 2,
        "k": 7,
        "params": 740_198,
        "gmacs": expected.macs / 1e9,
        "gflops_torch": expected.flops / 1e9,
        "size": [255, 190],
    }
    assert "740,198 parameters" in output.out
    assert f"{expected.macs / 1e9:.3f} G multiply" in output.out


def test_ablation_settings_change_the_count(tmp_path, mga_complexity):
    def figures(*options):
        file = tmp_path / "figures.json"
        assert mga_complexity("--network", "pan", "--scale", 2, "--size", "64x64", "--json", file, *options)[0] == 0
        return json.loads(file.read_text())

    default = figures()
    assert default["k"] == 1000
    assert figures("--k", 0)["gmacs"] < figures("--k", 1)["gmacs"] < default["gmacs"]
    assert figures("--split", "10+6", "--k", 50)["gmacs"] != figures("--k", 50)["gmacs"]
    assert figures("--mask-classes", 1)["params"] == default["params"] - 361
    assert figures("--patch-size", 8)["k"] == 250
    assert figures("--selection", "random")["gmacs"] == default["gmacs"]
    assert figures("--variant", "base")["k"] is None


def test_a_model_has_its_own_settings(tmp_path, mga_complexity):
    """A whole network is counted as it is, a mask-guided one with its K."""
    file = tmp_path / "figures.json"
    code, output = mga_complexity("--model", "span-x4", "--size", "48x48", "--json", file)
    assert (code, output.err) == (0, "")
    figures = json.loads(file.read_text())
    assert (figures["network"], figures["variant"], figures["split"], figures["k"]) == ("span", "whole", [6], None)
    assert figures["gflops_torch"] == pytest.approx(2 * 425e3 * 48 * 48 / 1e9, rel=2e-3)
    assert output.out.startswith("span x4 whole, blocks 6\none LR image of 48x48\n")
    code, _ = mga_complexity("--model", "fsrcnn-x4", "--size", "64x64", "--k", 3, "--json", file)
    figures = json.loads(file.read_text())
    assert (code, figures["k"], figures["variant"], figures["patch_size"]) == (0, 3, "masked", 4)
    assert figures["gmacs"] == NetworkCosts(load_model("fsrcnn-x4").config).cost("masked", 64, 64, 3).macs / 1e9
    for more, message in (
        (["--k", 3], "span-x4 is a whole network, which refines no patches; leave out --k"),
        (["--scale", 4], "--model has settings of its own; leave out --scale"),
        (["--variant", "masked"], "span is a whole network, which has no variant 'masked'"),
    ):
        code, output = mga_complexity("--model", "span-x4", "--size", "48x48", *more)
        assert (code, output.err) == (1, f"mga: complexity: {message}\n")


def test_mean_over_a_folder(tmp_path, mga_complexity):
    folder, file = tmp_path / "hr", tmp_path / "figures.json"
    folder.mkdir()
    for i, size in enumerate([(101, 83), (101, 83), (64, 130)]):
        Image.new("L" if i else "RGB", size).save(folder / f"{i}.png")
    data = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(data[:60])  # its pixels are never read
    (folder / "notes.txt").write_text("a text")
    code, output = mga_complexity(
        "--network", "fsrcnn", "--scale", 2, "--variant", "all", "--images", folder, "--json", file
    )
    assert code == 0, output.err
    figures = json.loads(file.read_text())
    costs = NetworkCosts(ModelConfig("fsrcnn", 2))
    expected = (2 * costs.cost("all", 50, 41).macs + costs.cost("all", 32, 65).macs) / 3e9
    assert figures["gmacs"] == pytest.approx(expected, rel=1e-12)
    assert (figures["images"], figures["count"]) == ("hr", 3)
    assert figures["mean_lr_pixels"] == pytest.approx((2 * 50 * 41 + 32 * 65) / 3)
    (folder / "3.png").write_text("no image")
    code, output = mga_complexity("--network", "fsrcnn", "--scale", 2, "--images", folder)
    assert code == 1
    assert_one_sentence(output, "3.png", "cannot be read")


def test_a_network_of_ones_own(mga_complexity):
    with example_registered():
        code, output = mga_complexity("--network", "residual", "--scale", 4, "--size", "64x48")
        expected = NetworkCosts(ModelConfig("residual", 4)).parameters("masked")
    assert code == 0
    assert f"{expected:,} parameters" in output.out


def assert_one_sentence(output, *parts):
    lines = output.err.splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith("mga")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--size", "0x5"], 2, "WIDTHxHEIGHT in pixels, such as 3840x2160, got '0x5'"),
        (["--size", "12x"], 2, "got '12x'"),
        (["--size", "12"], 2, "got '12'"),
        (["--size", "12x12", "--images", "."], 2, "not allowed with"),
        (["--size", "12x12", "--table"], 2, "not allowed with"),
        ([], 2, "--size --images --table is required"),
        (["--size", "12x12", "--split", "a+b"], 2, "such as 4+2, got 'a+b'"),
        (["--size", "12x12", "--k", "-3"], 2, "got '-3'"),
        (["--size", "12x12", "--variant", "best"], 2, "invalid choice"),
        (["--size", "12x12", "--network", "residual"], 1, "'residual' is not known"),
        (["--size", "12x12"], 1, "15x15 pixels or more"),
        (["--size", "16x3"], 1, "got 16x3"),
        (["--size", "99x99", "--json", "/nowhere/a.json"], 1, "its folder does not exist"),
        (["--size", "99x99", "--out", "."], 1, "--out goes with --table"),
        (["--table"], 1, "leave out --network"),
    ],
)
def test_what_cannot_be_counted_ends_in_one_sentence(mga_complexity, arguments, code, part):
    found, output = mga_complexity("--network", "rfdn", "--scale", 4, *arguments)
    assert found == code
    assert_one_sentence(output, part)


def test_folders_that_cannot_be_used(tmp_path, mga_complexity):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("a text")
    model = ["--network", "rfdn", "--scale", 4]
    for arguments, part in [
        ([*model, "--images", tmp_path / "empty"], "there is no image in"),
        ([*model, "--images", tmp_path / "none"], "does not exist"),
        (["--table", "--out", tmp_path / "none"], "there is no folder"),
        (["--images", tmp_path], "--network is missing"),
    ]:
        code, output = mga_complexity(*arguments)
        assert code == 1
        assert_one_sentence(output, part)
    Image.new("RGB", (30, 3)).save(tmp_path / "flat.png")
    code, output = mga_complexity(*model, "--images", tmp_path)
    assert code == 1
    assert_one_sentence(output, "flat.png (30x3) is too small for x4")
