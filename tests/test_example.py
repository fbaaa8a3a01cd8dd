"""The worked example of a network from outside, ``examples/residual``: whatever one of the package can, it can."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_zoo import EXAMPLE, example_registered, photographs
from PIL import Image
from tiny_model import write_tiny_model
from torch import Tensor, nn

from mga.cli import main
from mga.conversion.teacher import check_convertible, halves
from mga.training.packs import write_pack
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint, load_model, recognise
from mga_kernels.errors import CheckpointError
from mga_kernels.networks import WholeNetwork

OWN = "in convolutions of our own"
MEAN = (0.4488, 0.4371, 0.4040)


class Published(nn.Module):
    """It as a training would save it, RGB in 0..1, written down a second time."""

    def __init__(self, scale: int, blocks: int = 3, channels: int = 16):
        super().__init__()
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Module() for _ in range(blocks))
        for block in self.blocks:
            block.conv1, block.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.conv_after_blocks = nn.Conv2d(channels, channels, 3, padding=1)
        layers: list[nn.Module] = []
        for step in {2: [2], 3: [3], 4: [2, 2]}[scale]:
            layers += [nn.Conv2d(channels, channels * step**2, 3, padding=1), nn.PixelShuffle(step)]
        self.upsample = nn.Sequential(*layers)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)
        with torch.no_grad():
            self.conv_last.weight.mul_(4)

    def forward(self, image: Tensor) -> Tensor:
        mean = torch.tensor(MEAN)[None, :, None, None]
        shallow = x = self.conv_first((image - mean) * 255)
        for block in self.blocks:
            x = x + block.conv2(F.relu(block.conv1(x)))
        x = self.conv_last(self.upsample(self.conv_after_blocks(x) + shallow))
        return x / 255 + mean


@pytest.fixture
def _registered():
    with example_registered():
        yield


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    with example_registered():
        return write_tiny_model(tmp_path_factory.mktemp("model") / "residual.safetensors", network="residual", k=2)


@pytest.fixture
def published() -> dict[int, Published]:
    torch.manual_seed(0)
    return {scale: Published(scale).eval().requires_grad_(False) for scale in (2, 3, 4)}


def photograph(height: int, width: int) -> np.ndarray:
    return (photographs(height, width)[0].permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_published_file_is_recognised(tmp_path, published, scale):
    """Wherever in the file a training has left it, as with the networks of the package."""
    state = published[scale].state_dict()
    torch.save({"params_ema": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "net.pth")
    network = load_checkpoint(tmp_path / "net.pth")
    assert isinstance(network, WholeNetwork)
    config = network.config
    assert (config.network, config.scale, config.blocks, config.settings) == ("residual", scale, 3, {"channels": 16})
    image = photographs(15, 22)
    assert (network(image) - published[scale](image)).abs().max() < 1e-5


def test_without_it_the_file_is_named_for_what_it_is(tmp_path, published, monkeypatch):
    monkeypatch.delenv("MGA_NETWORKS", raising=False)
    torch.save(published[2].state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="is of no network that is known"):
        load_checkpoint(tmp_path / "net.pth")


@pytest.mark.usefixtures("_registered")
def test_what_no_tensor_tells_is_refused():
    with torch.device("meta"):
        large = Published(2, blocks=1, channels=256).state_dict()
    with pytest.raises(CheckpointError, match="looks like Residual, but it has 256 channels"):
        recognise({name: torch.zeros(tensor.shape) for name, tensor in large.items()}, "checkpoint: it")


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_is_run_by_convolutions_of_our_own(published, scale):
    """Whole, and cut in two in every variant, against the same in float32."""
    network = recognise(published[scale].state_dict(), "checkpoint: it")
    image = photograph(21, 34)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    check_near(MaskGuidedSR(network, device="cpu", runtime="own"), image, published[scale](pixels))
    for light in (False, True):
        divided = halves(network, (2, 1), patch_size=4, light=light)
        if light:
            divided.base.light.weight.mul_(2)
        for k in (0, 7, 54):
            check_near(MaskGuidedSR(divided, device="cpu", runtime="own", k=k), image, divided(pixels, k))
        dense = MaskGuidedSR(divided, device="cpu", runtime="own", mode="dense")
        check_near(dense, image, divided(pixels, variant="decomposed"))


def check_near(model: MaskGuidedSR, image: np.ndarray, exact: Tensor) -> None:
    assert OWN in model.info()["photographs"]
    found = torch.from_numpy(np.asarray(model.upscale(image))).permute(2, 0, 1)[None].double()
    exact = 255 * exact.clamp(0, 1).double()
    assert exact.std() > 10, "a flat picture proves nothing"
    difference = (found - exact).abs()
    assert difference.mean() < 0.02 * exact.std()
    assert difference.max() < 0.25 * exact.std()


@pytest.mark.usefixtures("_registered")
def test_it_is_converted_without_loss(published):
    for scale, original in published.items():
        teacher = check_convertible(recognise(original.state_dict(), "checkpoint: it"), "it")
        network = halves(teacher, (2, 1), patch_size=4)
        assert network.config.network == "residual"
        image = photographs(16, 24)
        assert (network.decomposed(network.coarse(image)[1]) - original(image)).abs().max() < 1e-5, scale


@pytest.mark.usefixtures("_registered")
def test_the_command_converts_it(tmp_path, published):
    torch.save(published[2].state_dict(), tmp_path / "net.pth")
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(photograph(40 + 4 * number, 48)).save(tmp_path / "photos" / f"{number}.png")
    arguments = "--images", tmp_path / "photos", "--split", "2+1", "--patch-size", 4, "--minutes", 0.01
    arguments += "--set", "crop=16", "--set", "batch=2"
    assert main(["convert", *map(str, (tmp_path / "net.pth", "-o", tmp_path / "fast.safetensors", *arguments))]) == 0
    assert load_model(tmp_path / "fast.safetensors").config.split == (2, 1)
    model = MaskGuidedSR.from_pretrained(tmp_path / "fast.safetensors", device="cpu", runtime="own")
    assert OWN in model.info()["photographs"]
    assert model.upscale(photograph(20, 24)).shape == (40, 48, 3)


def test_upscale_with_a_model_of_it(tmp_path, model_file, forks):
    photo = photograph(12, 18)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = "upscale", tmp_path / "photo.png", "-o", tmp_path / "large.png", "--model", model_file
    refused = forks.mga(*arguments, MGA_NETWORKS=None)
    assert refused.returncode == 1
    assert "network: 'residual' is not known" in refused.stderr
    assert "name the file that registers it in the environment variable MGA_NETWORKS" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "large.png").exists()
    done = forks.mga(*arguments, MGA_NETWORKS=str(EXAMPLE))
    assert (done.returncode, done.stderr) == (0, "")
    with example_registered():
        model = MaskGuidedSR.from_pretrained(model_file)
        assert model.network == "residual"
        expected, coarse = model.upscale(photo), MaskGuidedSR.from_pretrained(model_file, k=0).upscale(photo)
    found = np.asarray(Image.open(tmp_path / "large.png"))
    assert np.abs(found.astype(int) - expected).max() <= 1, "a level at most, by the number of threads"
    assert (found != coarse).any()


def test_info_runs_with_it_and_a_broken_file_stops_nothing_else(tmp_path, forks):
    (tmp_path / "broken.py").write_text("def")
    for networks in (EXAMPLE, tmp_path / "broken.py"):
        info = forks.mga("info", MGA_NETWORKS=str(networks))
        assert (info.returncode, info.stderr) == (0, "")
        assert "rfdn-x4: rfdn x4" in info.stdout


def test_a_model_of_it_without_it_is_refused_with_the_remedy(model_file, monkeypatch):
    monkeypatch.delenv("MGA_NETWORKS", raising=False)
    with pytest.raises(CheckpointError, match=r"network: 'residual' is not known; .* variable MGA_NETWORKS"):
        load_model(model_file)


@pytest.mark.usefixtures("_registered", "few_colours")
def test_it_is_trained_as_any_other(tmp_path, model_file):
    """By the command, from weights of its own: what docs/own_network.md says."""
    hr = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    write_pack(tmp_path / "train.safetensors", [("a", (hr, hr[::2, ::2]))], 2)
    steps = "".join(f"{step} = {{ iterations = 1, periods = 1 }}\n" for step in ("dense", "all", "mask"))
    paths = f'out = "{tmp_path}"\ntrain = ["{tmp_path}/train.safetensors"]\ninitial = "{model_file}"\n'
    (tmp_path / "mine.toml").write_text(f'network = "residual"\nscale = 2\ncrop = 8\nbatch = 1\n{paths}{steps}')
    assert main(["train", str(tmp_path / "mine.toml")]) == 0
    before, after = (load_model(path).state_dict() for path in (model_file, tmp_path / "residual-x2.safetensors"))
    changed = {name.partition(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {"base", "refine", "mask"}
    assert all((tensor - after[name]).abs().max() < 0.1 for name, tensor in before.items() if name.startswith("base."))
