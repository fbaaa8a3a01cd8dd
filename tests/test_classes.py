"""Networks of which a classifier chooses one for each sub-image: the definition, the engine, files, and their cost."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from pictures import smooth_picture
from PIL import Image
from safetensors.torch import load_file, save_file

from mga.cli import main
from mga.complexity.counting import WholeCosts, costs_of, measure
from mga.evaluation.resize import shrink_for_scale
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import is_whole, load_checkpoint, load_model, read_metadata, save_model
from mga_kernels.checkpoints.native import load_native
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.export import export_model
from mga_kernels.networks import ClassConfig, ClassNetwork, WholeConfig, WholeNetwork
from mga_kernels.networks.classes import TOGETHER, starts
from mga_kernels.runtimes.cpu import choose

WIDTHS = (16, 36, 56)
TIGHT = {"own": "35MiB", "pytorch": "60MiB"}  # too little for the whole of the picture


def config_of(scale: int = 4, **settings) -> ClassConfig:
    return ClassConfig(tuple(WholeConfig("fsrcnn", scale, 4, {"expanded": width}) for width in WIDTHS), **settings)


def network_of(config: ClassConfig | None = None) -> ClassNetwork:
    """Of FSRCNN by default, with sub-images in all classes."""
    torch.manual_seed(3)
    network = sorting(ClassNetwork(config or config_of()).eval().requires_grad_(False))
    for branch in network.branches:  # so that what they make differs, and what they see at their borders, by levels
        branch.body.last_part[2].weight.mul_(3)
        branch.body.first_part[0].weight[..., ::4].mul_(10)
    return network


def sorting(network: ClassNetwork, height: int = 150, width: int = 190) -> ClassNetwork:
    """With weights by which sub-images of a picture fall into all classes, far from the borders between them."""
    sub_images = network.cut(tensor_of(picture_of(height, width)))
    one = network.classifier(sub_images)[:, 0]
    last, weight, bias = network.classifier.scores, *(p[0].clone() for p in network.classifier.scores.parameters())
    bias = bias - one.mean()
    for number, (sign, offset) in enumerate(((-1, -20), (0, 0), (1, -20))):  # a third each, about
        last.weight[number] = sign * 40 / one.std() * weight
        last.bias[number] = sign * 40 / one.std() * bias + offset
    return network


def picture_of(height: int, width: int) -> np.ndarray:
    """Smooth on the left, with more and more noise to the right."""
    picture = smooth_picture(height + 8, width + 8, 1)[:height, :width].astype(float)
    noise = np.random.default_rng(0).normal(size=picture.shape) * np.linspace(0, 60, width)[None, :, None]
    return (picture + noise).clip(0, 255).astype(np.uint8)


def tensor_of(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None] / 255


def by_hand(network: ClassNetwork, image: torch.Tensor) -> torch.Tensor:
    """Sub-image after sub-image, in float64, with sums and counts of every pixel."""
    config, (height, width) = network.config, image.shape[-2:]
    scale, side = config.scale, config.window
    rows, columns = (
        sorted({min(at, max(0, length - side)) for at in range(0, length, config.step)}) for length in (height, width)
    )
    total = torch.zeros(1, 3, height * scale, width * scale, dtype=torch.float64)
    count = torch.zeros(height * scale, width * scale)
    for y in rows:
        for x in columns:
            part = image[..., y : y + side, x : x + side]
            branch = network.branches[int(network.classifier(part).argmax())]
            large = slice(y * scale, (y + side) * scale), slice(x * scale, (x + side) * scale)
            total[..., large[0], large[1]] += branch(part).clamp(0, 1)
            count[large] += 1
    return total / count


def test_sub_images_cover_an_image_and_end_where_it_ends():
    assert starts(60, 32, 28) == (0, 28)
    assert starts(61, 32, 28) == (0, 28, 29)
    assert starts(32, 32, 28) == starts(5, 32, 28) == (0,)
    for length in range(1, 200):
        covered = {at for start in starts(length, 32, 28) for at in range(start, min(start + 32, length))}
        assert covered == set(range(length)), length


@pytest.mark.parametrize("size", [(150, 190), (32, 32), (33, 60), (5, 40), (4, 4)])
def test_the_network_is_what_is_made_of_each_sub_image_alone(size):
    network, image = network_of(), tensor_of(picture_of(*size))
    assert (network(image) - by_hand(network, image)).abs().max() < 1e-5


def test_the_picture_has_sub_images_of_every_class_and_one_that_overlaps_another():
    network, image = network_of(), tensor_of(picture_of(150, 190))
    counts = torch.bincount(network.classes(network.cut(image)), minlength=3)
    assert (counts >= 3).all(), "the other tests prove nothing without"
    assert counts.sum() == len(network.config.sub_images(150, 190)) == 6 * 7
    only_first = torch.zeros(6 * 7, dtype=torch.long)
    with_first = network.merged(network.restored(network.cut(image), only_first), 150, 190)
    assert (network(image) - with_first).abs().max() > 0.02


def test_images_together_are_those_one_by_one():
    network = network_of()
    images = torch.cat([tensor_of(picture_of(70, 90)), tensor_of(picture_of(70, 90)).flip(3)])
    together, alone = network(images), torch.cat([network(image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-5
    assert TOGETHER < len(network.cut(tensor_of(picture_of(300, 300)))), "so an image may take several calls"
    large = tensor_of(picture_of(300, 300))
    assert (network(large) - by_hand(network, large)).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(150, 190), (33, 31), (2, 50), (1, 1)])
def test_photographs_and_tensors_are_the_network(size):
    network, picture = network_of(), picture_of(*size)
    model = MaskGuidedSR(network, dtype="float32")
    made = np.asarray(model.upscale(picture))
    assert made.shape == (size[0] * 4, size[1] * 4, 3)
    tensor = model(tensor_of(picture))[0].permute(1, 2, 0).numpy()
    assert np.abs(made - 255 * tensor).max() < 1.01
    if min(size) >= 4:
        assert np.abs(tensor - network(tensor_of(picture))[0].permute(1, 2, 0).clamp(0, 1).numpy()).max() < 1e-5


@pytest.mark.parametrize("size", [(150, 190), (300, 300), (33, 31), (32, 64), (5, 40), (1, 1)])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kept", choose.STORAGES)
def test_convolutions_of_our_own_are_the_network(size, scale, kept):
    """Neighbours in a grid see nothing of each other, and every sub-image ends as an image does."""
    network, picture = network_of(config_of(scale)), picture_of(*size)
    model = MaskGuidedSR(network, runtime="own", dtype=kept)
    made = np.asarray(model.upscale(picture)).astype(int)
    expected = np.asarray(MaskGuidedSR(network, runtime="pytorch", dtype="float32").upscale(picture)).astype(int)
    assert model.info()["photographs"] == f"{choose.described(choose.STORAGES[kept])}, by classes"
    assert np.abs(made - expected).max() <= (1 if kept == "float32" else 6)
    assert np.abs(made - expected).mean() < 0.2
    again = np.asarray(model.upscale(picture)).astype(int)
    assert np.array_equal(made, again), "whatever the grid held before"


def test_a_class_without_a_sub_image_is_not_run():
    network = network_of()
    network.classifier.scores.bias[1] += 1e6
    picture = picture_of(60, 60)
    made, expected = (np.asarray(MaskGuidedSR(network, runtime=name).upscale(picture)) for name in ("own", "pytorch"))
    assert np.abs(made.astype(int) - expected).max() <= 6


def test_networks_without_a_grid_run_in_pytorch():
    branches = tuple(WholeConfig("compact", 2, 1, {"channels": width}) for width in (8, 12))
    torch.manual_seed(0)
    network = ClassNetwork(ClassConfig(branches)).eval()
    with pytest.raises(InputError, match="there are none for sub-images by compact yet"):
        MaskGuidedSR(network, runtime="own")
    assert np.asarray(MaskGuidedSR(network).upscale(picture_of(40, 50))).shape == (80, 100, 3)


@pytest.mark.parametrize(("scale", "settings"), [(4, {"padding": 3}), (4, {"expanded": 30}), (3, {"shrunk": 9})])
def test_a_branch_alone_runs_in_convolutions_of_our_own(scale, settings):
    """Also where its transposed convolution begins elsewhere, as in ClassSR's files: a pixel makes 39 levels."""
    torch.manual_seed(0)
    network = WholeNetwork(WholeConfig("fsrcnn", scale, 4, settings)).eval()
    picture = picture_of(40, 50)
    made, expected = (
        np.asarray(MaskGuidedSR(network, runtime=name).upscale(picture)).astype(int) for name in ("own", "pytorch")
    )
    assert np.abs(made - expected).max() <= 3


@pytest.mark.parametrize("runtime", ["own", "pytorch"])
def test_an_image_in_tiles_is_the_whole_image(runtime):
    network, picture = network_of(), picture_of(150, 190)
    whole = np.asarray(MaskGuidedSR(network, runtime=runtime, dtype="float32").upscale(picture)).astype(int)
    model = MaskGuidedSR(network, runtime=runtime, dtype="float32", memory=TIGHT[runtime])
    tiled = np.asarray(model.upscale(picture)).astype(int)
    assert "tiles" in model.info()["prepared"][0]
    assert np.abs(tiled - whole).max() <= 1
    assert (tiled != whole).mean() < 1e-3


def test_it_has_no_mask():
    model = MaskGuidedSR(network_of())
    assert model.whole
    assert model.info()["mode"] == "dense"
    with pytest.raises(InputError, match="no mask"):
        MaskGuidedSR(network_of(), k=3)
    with pytest.raises(InputError, match="no mask"):
        model.explain(picture_of(40, 40))
    with pytest.raises(InputError, match="which of its networks a part of an image takes"):
        export_model(network_of(), "never.pt2")


def written(folder) -> str:
    path = str(folder / "classes.safetensors")
    save_model(path, network_of(config_of(shares=(0.5, 0.25, 0.25))), {"weights": "none"}, {"note": "untrained"})
    return path


def test_a_file_is_the_network(tmp_path):
    path = written(tmp_path)
    loaded = load_native(path)
    assert isinstance(loaded, ClassNetwork)
    assert loaded.config == config_of(shares=(0.5, 0.25, 0.25)) == read_metadata(path)["config"]
    image = tensor_of(picture_of(60, 70))
    assert torch.equal(loaded(image), network_of()(image))
    assert isinstance(load_checkpoint(path), ClassNetwork)
    assert is_whole(path)
    with pytest.raises(CheckpointError, match="a mask-guided model is expected"):
        load_model(path)
    assert np.asarray(MaskGuidedSR.from_pretrained(path).upscale(picture_of(20, 30))).shape == (80, 120, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(step=40), "sub-images of 32 pixels at a step of 40"),
        (lambda facts: facts.update(step="x"), "sub-images of 32 pixels at a step of 'x'"),
        (lambda facts: facts.update(window=1e9), "does not fit|cannot be"),
        (lambda facts: facts.update(shares=[1.0]), "shares are 3 numbers"),
        (lambda facts: facts.update(shares=None), "not a configuration of this version"),
        (lambda facts: facts.update(branches=[]), "two or more networks of one kind"),
        (lambda facts: facts["branches"][0].update(scale=2), "of one kind, of RGB and of one scale"),
        (lambda facts: facts["branches"][0].update(colour="y"), "of one kind, of RGB and of one scale"),
        (lambda facts: facts["branches"][1]["settings"].update(expanded=40), "tensor branches.1"),
        (lambda facts: facts["branches"][1]["settings"].update(width=40), "does not have this setting"),
        (lambda facts: facts.pop("branches"), "not a configuration of this version"),
    ],
)
def test_damaged_configurations_are_refused(tmp_path, change, message):
    path = written(tmp_path)
    facts = json.loads(config_of().to_json())
    change(facts)
    metadata = {"form": "classes", "format": "mga_kernels", "config": json.dumps(facts), "licence": "{}"}
    save_file(load_file(path), path, metadata | {"training": "{}"})
    with pytest.raises(CheckpointError, match=message):
        load_native(path)


def test_damaged_weights_are_refused(tmp_path):
    path = written(tmp_path)
    tensors, metadata = load_file(path), {"form": "classes", "format": "mga_kernels", "config": config_of().to_json()}
    metadata |= {"licence": "{}", "training": "{}"}
    lost = tensors.pop("classifier.scores.weight")
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match=r"classifier\.scores\.weight is missing in the file"):
        load_native(path)
    save_file(tensors | {"classifier.scores.weight": lost * math.nan}, path, metadata)
    with pytest.raises(CheckpointError, match=r"classifier\.scores\.weight holds NaN"):
        load_native(path)


def test_what_needs_a_mask_or_one_network_says_so(tmp_path, capsys):
    path = written(tmp_path)
    (tmp_path / "images").mkdir()
    for command in (
        ["complexity", "--model", path, "--size", "60x60", "--k", "5"],
        ["complexity", "--model", path, "--size", "60x60", "--variant", "base"],
        ["complexity", "--model", path, "--size", "3x60"],
        [
            "convert",
            path,
            "-o",
            str(tmp_path / "out.safetensors"),
            "--images",
            str(tmp_path / "images"),
            "--split",
            "1+1",
        ],
        ["ablate", "k", path, "-o", str(tmp_path / "study"), "--sets", str(tmp_path / "images")],
        ["report", path, "--original", path, "--images", str(tmp_path / "images"), "-o", str(tmp_path / "page.html")],
    ):
        assert main(command) == 1, command
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert re.search("without a mask|no mask|refines no patches|one for each class|4x4 pixels", error), command


def macs_of_fsrcnn(width: int, pixels: int, scale: int = 4) -> int:
    """FSRCNN of this d, s = 12 and m = 4, by the paper's convention: an activation counts its values."""
    convolutions = 75 * width + 12 * width + 4 * 9 * 12 * 12 + 12 * width
    activations = width + 12 + 4 * 12 + width
    return pixels * (convolutions + activations + 243 * width * scale**2)


def test_the_cost_is_that_of_all_sub_images_with_what_they_overlap():
    """As Table 2 corrects ClassSR's figures: 15 sub-images of 32x32 where an image of 88x144 has 12.4 times as much."""
    costs = costs_of(config_of())
    classifier = 64 * (48 * 128 + 3 * 128 * 128 + 128 * 32 + 4 * 128) + 32 * 3
    branches = [macs_of_fsrcnn(width, 32 * 32) for width in WIDTHS]
    assert costs.parameters() == 113_324, "113K in Table 2"
    assert len(config_of().sub_images(88, 144)) == 3 * 5
    counted = costs.of_classes(144, 88, [7, 5, 3])
    assert counted.macs == 15 * classifier + 7 * branches[0] + 5 * branches[1] + 3 * branches[2]
    expected = 15 * classifier + 15 * sum(branches) / 3
    assert costs.cost("whole", 144, 88).macs == pytest.approx(expected)
    hard = costs_of(config_of(shares=(0, 0, 1))).cost("whole", 144, 88).macs
    alone = WholeCosts(config_of().branches[2]).cost("whole", 144, 88).macs
    assert hard > alone * 15 * 32 * 32 / (88 * 144)
    small = costs.of_classes(20, 8, [1, 0, 0])
    assert small.macs == macs_of_fsrcnn(16, 160) + measure(costs.network.classifier, 1, 3, 8, 20).macs


def test_the_cost_of_an_image_is_that_of_its_classes():
    network, costs = network_of(), costs_of(config_of())
    image = tensor_of(picture_of(150, 190))
    counts = torch.bincount(network.classes(network.cut(image)), minlength=3)
    assert costs.of_image(network, image) == costs.of_classes(190, 150, counts.tolist())


def test_the_command_counts_it(tmp_path, capsys):
    figures = tmp_path / "cost.json"
    assert main(["complexity", "--model", written(tmp_path), "--size", "144x88", "--json", str(figures)]) == 0
    assert "fsrcnn x4 whole" in capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert found["params"] == 113_324
    assert found["split"] == [4, 4, 4]
    expected = costs_of(config_of(shares=(0.5, 0.25, 0.25))).cost("whole", 144, 88).macs / 1e9
    assert found["gmacs"] == pytest.approx(expected)


def test_a_suite_counts_what_each_image_costs(tmp_path):
    network, path = network_of(config_of(2)), tmp_path / "classes.safetensors"
    save_model(path, network, {"weights": "none"}, {"note": "untrained"})
    (tmp_path / "sets/mine/HR").mkdir(parents=True)
    for number, size in enumerate(((120, 200), (90, 80))):
        Image.fromarray(picture_of(*size)).save(tmp_path / f"sets/mine/HR/{number}.png")
    figures = tmp_path / "figures.json"
    command = ["evaluate", "--sets", str(tmp_path / "sets"), "--scale", "2", "--model", str(path), "--dtype", "float32"]
    assert main([*command, "--json", str(figures), "-o", str(tmp_path / "table.md")]) == 0
    row = next(row for row in json.loads(figures.read_text())["rows"] if row["file"] is not None)
    assert (row["variant"], row["split"], row["params"]) == ("whole", "classes", 113_324)
    lrs = [tensor_of(shrink_for_scale(picture_of(*size), 2)[1]) for size in ((120, 200), (90, 80))]
    costs = [costs_of(network.config).of_image(network, lr).macs / 1e9 for lr in lrs]
    assert costs[0] != pytest.approx(costs_of(network.config).cost("whole", 100, 60).macs / 1e9)
    assert row["sets"]["mine"]["gmacs"] == pytest.approx(sum(costs) / 2)
    assert "classes" in (tmp_path / "table.md").read_text()
