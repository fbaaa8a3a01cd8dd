"""Counts against hand arithmetic and against the paper; the ``mga complexity`` command."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mga.cli import main
from mga.complexity import NetworkCosts, measure, paper, table
from mga.complexity.markdown import to_markdown
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, Network, register_network, registry

RESULTS = Path(__file__).resolve().parent.parent / "bench" / "results"

# Parameters of -B, -D and -A, -M. The three-digit figures of the paper are the rounding of these.
PARAMETERS = {
    ("fsrcnn", 3): (23_363, 41_694, 43_270),
    ("fsrcnn", 4): (23_363, 41_694, 43_270),
    ("pan", 3): (203_723, 296_174, 311_386),
    ("pan", 4): (214_739, 312_998, 328_210),
    ("rfdn", 3): (423_977, 697_754, 721_256),
    ("rfdn", 4): (433_448, 716_696, 740_198),
    ("srresnet", 3): (1_287_680, 2_041_664, 2_079_796),
    ("srresnet", 4): (1_250_816, 1_967_936, 2_006_068),
    ("rcan", 3): (11_052_339, 16_074_150, 16_112_282),
    ("rcan", 4): (11_015_411, 16_000_294, 16_038_426),
}

pytestmark = pytest.mark.usefixtures("free_choice")


class TinyBase(nn.Module):
    """3 -> 2 channels and back, x2 by a transposed convolution."""

    def __init__(self, scale, blocks=1):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.PReLU(2))
        self.tail = nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1)

    def forward(self, image):
        feature = self.head(image)
        return self.tail(feature), feature


class TinyRefine(nn.Module):
    halo = 1

    def __init__(self, scale, blocks=1):
        super().__init__()
        self.body = nn.Conv2d(2, 4, 3, padding=1)
        self.tail = nn.Sequential(nn.LeakyReLU(0.1), nn.Conv2d(4, 12, 3), nn.PixelShuffle(2))

    def forward(self, patches):
        return self.tail(self.body(patches))


class Attention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x, x, need_weights=False)[0]


@pytest.fixture
def tiny(monkeypatch):
    """Costs of a network small enough for arithmetic by hand, x2, p = 4."""
    monkeypatch.setattr(registry, "_networks", {})
    register_network(Network("tiny", TinyBase, TinyRefine, feature_channels=2, split=(1, 1)))
    return NetworkCosts(ModelConfig("tiny", 2, k=5))


def with_meta(module, *shape):
    return measure(module.to("meta"), *shape).macs


def test_convolutions_by_hand():
    assert with_meta(nn.Conv2d(3, 5, 3, padding=1), 1, 3, 7, 9) == 7 * 9 * 3 * 5 * 9
    assert with_meta(nn.Conv2d(3, 5, 3), 2, 3, 7, 9) == 2 * 5 * 7 * 3 * 5 * 9
    assert with_meta(nn.Conv2d(4, 6, 3, stride=2, groups=2), 1, 4, 9, 9) == 4 * 4 * 2 * 6 * 9
    assert with_meta(nn.ConvTranspose2d(5, 3, 9, stride=2, padding=4, output_padding=1), 1, 5, 7, 9) == (
        14 * 18 * 5 * 3 * 81
    )
    assert with_meta(nn.ConvTranspose2d(6, 4, 3, groups=2), 1, 6, 5, 5) == 7 * 7 * 6 * 4 * 9 // 2
    assert with_meta(nn.Linear(3, 5), 7, 3) == 7 * 3 * 5


@pytest.mark.parametrize("inplace", [False, True])
def test_activations_of_the_relu_family_cost_one_per_value(inplace):
    for activation in (nn.ReLU(inplace), nn.LeakyReLU(0.1, inplace), nn.ReLU6(inplace), nn.PReLU(4), nn.PReLU()):
        assert with_meta(activation, 2, 4, 3, 5) == 120
    for free in (nn.Sigmoid(), nn.Softmax(1), nn.AvgPool2d(2), nn.InstanceNorm2d(4, affine=True), nn.PixelShuffle(2)):
        assert with_meta(free, 1, 4, 6, 6) == 0


def test_the_count_of_torch_stands_beside_it():
    """Two operations for each multiply-accumulate; transposed convolutions by their input; nothing for activations."""
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(5, 3, 4, 2, 1)).to("meta")
    cost = measure(layers, 1, 3, 7, 9)
    assert cost.macs == 63 * 135 + 63 * 5 + 4 * 63 * 240
    assert cost.flops == 2 * (63 * 135 + 63 * 240)


@pytest.mark.parametrize("network", ["fsrcnn", "pan", "rfdn", "srresnet"])
def test_the_count_of_torch_is_that_of_its_counter(network):
    costs = NetworkCosts(ModelConfig(network, 2, split=(1, 1)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _, feature = costs.network.base(torch.empty(1, 3, 32, 40, device="meta"))
        costs.network.mask(feature)
        costs.network.refined(feature, torch.empty(1, 9, dtype=torch.int32, device="meta"))
    assert costs.cost("masked", 40, 32, k=9).flops == counter.get_total_flops()


def test_attention_counts_too():
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval().to("meta")
    cost = measure(Attention(layer), 3, 10, 8)
    assert cost.macs == cost.flops / 2 == 3 * (10 * 8 * 24 + 2 * 10 * 10 * 8 + 10 * 8 * 8)


def test_a_whole_network_by_hand(tiny):
    """18 x 13 is cropped to 16 x 12 = 192 pixels, 12 cells."""
    base = 192 * (3 * 2 * 9 + 2) + 4 * 192 * 2 * 3 * 16
    patch = 36 * (2 * 4 * 9 + 4) + 16 * 4 * 12 * 9
    mask = 192 * (2 * 2 * 9 + 2) + 12 * (2 * 2 * 9) + 12 * 25
    assert tiny.cost("base", 18, 13).macs == base
    assert tiny.cost("all", 18, 13).macs == base + 12 * patch
    assert tiny.cost("masked", 18, 13).macs == base + mask + 5 * patch
    assert tiny.cost("masked", 18, 13, k=0).macs == base + mask
    assert tiny.cost("masked", 18, 13, k=99).macs == base + mask + 12 * patch
    assert tiny.cost("decomposed", 18, 13).macs == base + 192 * (2 * 4 * 9 + 4 + 4 * 12 * 9)
    torch_base = 2 * 192 * (54 + 96)
    assert tiny.cost("base", 18, 13).flops == torch_base
    assert tiny.cost("decomposed", 18, 13).flops == torch_base + 2 * (18 * 14 * 72 + 192 * 432)
    assert tiny.cost("masked", 18, 13).flops == torch_base + 2 * (192 * 72 + 12 * 25 + 5 * (36 * 72 + 16 * 432))
    parameters = 56 + 2 + 99, 76 + 444, 38 + 38 + 50
    assert tiny.parameters("base") == parameters[0]
    assert tiny.parameters("decomposed") == tiny.parameters("all") == sum(parameters[:2])
    assert tiny.parameters("masked") == sum(parameters)


def test_a_mean_weighs_its_images(tiny):
    one, other = tiny.cost("all", 16, 12), tiny.cost("all", 40, 20)
    mean = tiny.mean_cost("all", [(16, 12, 3), (40, 20, 1)])
    assert mean.macs == pytest.approx((3 * one.macs + other.macs) / 4, rel=1e-12)
    assert mean.flops == pytest.approx((3 * one.flops + other.flops) / 4, rel=1e-12)


def test_counted_is_what_is_run():
    """Hooks on the layers of a real forward pass see the convolutions that -A was charged for."""
    config = ModelConfig("fsrcnn", 2)
    network, seen = MaskGuidedNetwork(config).eval(), []

    def hook(layer, inputs, output):
        if isinstance(layer, nn.PReLU):
            seen.append(output.numel())
        else:
            seen.append(len(output) * output.shape[2:].numel() * layer.weight.numel())

    for layer in [*network.base.modules(), *network.refine.modules()]:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.PReLU):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        network(torch.rand(1, 3, 12, 20), variant="all")
    leaky = 15 * 36 * 12  # a function, which no hook sees
    assert sum(seen) + leaky == NetworkCosts(config).cost("all", 20, 12).macs


@pytest.mark.parametrize(("network", "scale"), PARAMETERS)
def test_parameters_to_the_unit(network, scale):
    costs = NetworkCosts(ModelConfig(network, scale))
    found = [costs.parameters(variant) for variant in ("base", "decomposed", "all", "masked")]
    base, decomposed, masked = PARAMETERS[network, scale]
    assert found == [base, decomposed, decomposed, masked]


@pytest.mark.parametrize("row", list(paper.rows()), ids=lambda row: f"table{row.table}-{row.name}-x{row.scale}")
def test_figures_of_the_paper(row):
    """The tolerance is written out here, so that a wrong one in the table shows."""
    result = table.compare(row)
    for dataset, cell in result["gmacs"].items():
        expected = float(row.gmacs[dataset])
        if cell["note"] is None:
            assert cell["ours"] == pytest.approx(expected, rel=1e-3), dataset
            assert cell["agrees"]
        else:
            assert dataset != "Urban100"
            assert cell["agrees"] is None
    if row.params is not None and (row.network, row.scale) != ("srresnet", 3):
        unit, half = (1e3, 0.5) if row.params.endswith("K") else (1e6, 0.005)
        assert abs(result["params"]["ours"] / unit - float(row.params[:-1])) <= half
        assert result["params"]["agrees"]


def test_the_misprints_are_what_the_notes_say():
    costs = NetworkCosts(ModelConfig("srresnet", 2))
    rows = {row.variant: row for row in paper.rows() if (row.network, row.scale) == ("srresnet", 3)}
    for variant, row in rows.items():
        assert paper.note(row, "params") == "a"
        assert f"{costs.parameters(variant):,}" in paper.NOTES["a"]
        assert f"{costs.parameters(variant) / 1e6:.2f}M" == row.params
        assert table.compare(row)["gmacs"]["Urban100"]["agrees"]
    wrong = next(row for row in paper.rows() if paper.note(row, "Test2K") == "d")
    right = next(r for r in paper.rows() if (r.table, r.name, r.scale) == (1, wrong.name, wrong.scale))
    assert right.gmacs["Test2K"] == "50.31"
    assert table.compare(right)["gmacs"]["Test2K"]["agrees"]


def test_a_figure_that_does_not_agree_is_told(monkeypatch, tmp_path, capsys):
    pixels = {name: table.mean_pixels(name, 4, 4) for name in paper.DATASETS}
    rows = [row for row in paper.rows() if row.network == "fsrcnn" and row.scale == 4][:2]
    rows[0].gmacs["Urban100"] = "10.95"
    monkeypatch.setattr(paper, "rows", lambda: iter(rows))
    monkeypatch.setattr(table, "mean_pixels", lambda dataset, scale, p: pixels[dataset])
    assert main(["complexity", "--table", "--out", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "Table 1, FSRCNN-B x4, Urban100: 10.9318, the paper has 10.95 (-0.166 %)" in output
    assert (
        "FSRCNN-B | x4 | 23,363 / 23K / +1.578 | 10.93 / 10.95 / -0.166 ✗ |" in (tmp_path / "complexity.md").read_text()
    )


@pytest.mark.parametrize(
    ("ours", "printed", "expected"),
    [
        (14.6146, "14.60", True),
        (14.6154, "14.60", False),
        (14.5854, "14.60", True),
        (14.5846, "14.60", False),
        (2.006, "2.01", True),
        (2.0155, "2.01", False),
        (43.499, "43", True),
        (42.49, "43", False),
    ],
)
def test_agreement_is_a_thousandth_or_the_rounding(ours, printed, expected):
    assert table.agrees(ours, printed) is expected


@pytest.mark.parametrize("pixels", [*paper.URBAN100_PIXELS.values(), 763_033.56])
def test_two_sizes_have_the_mean(pixels):
    sizes = table.sizes_of_mean(pixels)
    assert sum(width * height * weight for width, height, weight in sizes) == pytest.approx(pixels, rel=1e-12)
    assert sum(weight for *_, weight in sizes) == pytest.approx(1)
    assert all(0 <= weight <= 1 and width % 8 == height % 8 == 0 for width, height, weight in sizes)


def test_committed_results_are_those_that_the_command_makes():
    committed = json.loads((RESULTS / "complexity.json").read_text())
    made = json.loads(json.dumps(table.make_table()))
    assert made["agree"] == made["tested"] == 187
    for document in (committed, made):
        document.pop("versions")
        for row in document["rows"]:
            row.pop("gflops_torch")  # torch's count is that of its version
    assert made == committed
    assert (RESULTS / "complexity.md").read_text() == to_markdown(json.loads((RESULTS / "complexity.json").read_text()))


def test_a_network_that_needs_values_is_refused(monkeypatch):
    class Curious(TinyBase):
        def forward(self, image):
            return super().forward(image if image.mean().item() > 0 else -image)

    monkeypatch.setattr(registry, "_networks", {})
    register_network(Network("curious", Curious, TinyRefine, feature_channels=2, split=(1, 1)))
    with pytest.raises(InputError, match="a Curious cannot be counted for"):
        NetworkCosts(ModelConfig("curious", 2)).cost("base", 16, 16)


def test_rcan_on_a_large_image_needs_no_memory():
    costs = NetworkCosts(ModelConfig("rcan", 4))
    assert costs.cost("all", 99_996, 99_996).macs == pytest.approx(1085.53e9 / 48089.92 * 99_996**2, rel=1e-4)
    assert all(parameter.is_meta for parameter in costs.network.parameters())
