"""The table of what networks ask of a GPU: what it counts, and that the committed one is true."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def floors(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import gpu_floors

    return gpu_floors


@pytest.fixture
def record():
    return json.loads((ROOT / "bench/results/gpu_floors.json").read_text())


def test_launches_operations_and_bytes_are_counted(floors):
    convolution = nn.Conv2d(16, 24, 3, padding=1).half().to("meta")
    odd = nn.Conv2d(24, 6, 1, bias=False).half().to("meta")
    image = torch.empty(1, 16, 10, 20, dtype=torch.float16, device="meta")
    with torch.no_grad(), floors.Counter() as counter:
        result = torch.relu(convolution(image))[:, :, 1:]
        odd(result).add_(1)
    found = [(each.name, each.kernels, each.operations, each.bytes, each.even) for each in counter.launches]
    first, second = 24 * 10 * 20, 24 * 9 * 20
    assert found == [
        ("convolution", 1, 2 * 9 * 16 * first, 2 * (16 * 200 + 9 * 16 * 24 + first), True),
        ("bias", 1, 0, 2 * (2 * first + 24), True),
        ("relu", 1, 0, 2 * 2 * first, True),
        ("convolution", 1, 2 * 6 * second, 2 * (second + 6 * 24 + 6 * 180), False),
        ("add_", 1, 0, 2 * 2 * 6 * 180, True),
    ]
    at_rates = floors.Launches("convolution", 1, 600, 30)
    assert at_rates.floor(10, 100) == 6
    assert at_rates.floor(1, 100) == 30


def test_operators_of_ours_are_one_launch(floors):
    from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

    network = MaskGuidedNetwork(ModelConfig("srresnet", 4)).eval().requires_grad_(False)
    launches = floors.walk(floors.CudaGraphPlanner(network, floors.META), False, 20, 24, 32)
    names = [each.name for each in launches]
    for name in ("image_to_input", "mask_head", "filter_and_select", "gather_patches", "paste_patches_"):
        assert names.count(name) == 1, name
    (chosen,) = (each for each in launches if each.name == "filter_and_select")
    assert chosen.kernels == 2


def test_of_a_list_the_tiles_that_are_computed_and_written_count(floors):
    """By hand: of 4 tiles of 128 pixels one is computed, and that and another are written."""
    out, x = (torch.empty(16, 32, 16, dtype=torch.float16, device="meta") for _ in range(2))
    weight, tiles = torch.empty(9, 16, 16, dtype=torch.float16), torch.empty(4, dtype=torch.int32)
    arguments = (out, x, weight, None, None, None, tiles, *[None] * 5, 3, 1, 1)
    found = floors.over_a_list(arguments, 0.25, 0.5)
    pixel, weights = 2 * 16, 2 * 9 * 16 * 16
    assert found.operations == 2 * 128 * 9 * 16 * 16
    assert found.bytes == 128 * pixel + 2 * 128 * pixel + weights + 4 * 4


def test_regions_of_more_cells_take_more_and_as_many_launches(record):
    rows = {(row["network"], row["road"]): row["counted"] for row in record["rows"]}
    for name in ("span", "compact", "msrresnet"):
        some, more, every = (rows[name, f"regions of {share}%, own convolutions"] for share in (10, 30, 100))
        assert some["launches"] == more["launches"] == every["launches"]
        whole = rows[name, "whole, own convolutions"]["GFLOP"]
        assert some["GFLOP"] < more["GFLOP"] < 0.6 * whole < whole < every["GFLOP"] < 1.15 * whole


def test_the_shipped_model_a_mean_of_two_and_classes_have_rows(record):
    rows = {(row["network"], row["road"]): row["counted"] for row in record["rows"]}
    shipped, usual = (rows[name, "regions of 30%, own convolutions"] for name in ("span-x4-regions", "span"))
    assert shipped["launches"] == usual["launches"] - 1  # its Base-Net has one layer less
    assert shipped["GFLOP"] < usual["GFLOP"]
    mean = rows["span", "mean with rfdn in regions of 30%, own convolutions"]
    assert mean["convolutions"] > usual["convolutions"] + 40
    base = rows["span", "regions of 30%, own convolutions"]["GFLOP"] - rows["span", "whole, own convolutions"]["GFLOP"]
    assert mean["GFLOP"] > base + 600  # those of RFDN
    classes = rows["fsrcnn", "by classes, own convolutions"]
    assert classes["launches"] < 80
    assert classes["convolutions"] == 3 * 8 + 5  # of the branches and of the classifier


def test_the_page_is_made_from_the_record(floors, record):
    assert (ROOT / "bench/results/gpu_floors.md").read_text() == floors.table(record)
    assert "Nothing here is measured" in floors.table(record)


def test_the_record_has_every_network_and_is_what_is_counted(floors, record):
    """All of it: a change of one network's layers alone would leave its rows as they were."""
    rows = {(row["network"], row["road"]): row["counted"] for row in record["rows"]}
    packaged = {path.parent.name for path in ROOT.glob("mga_kernels/architectures/*/network.py")}
    assert {network for network, _ in rows} == packaged | {floors.SHIPPED}
    again = {
        (network, road): floors.row(launches, record["bandwidth"], record["rate"])
        for network, road, launches in floors.roads(floors.HEIGHT, floors.WIDTH)
    }
    assert again == rows
