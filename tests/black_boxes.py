"""Small networks that are not ours, as another library would run them: windows, shifted ones, and means of an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mga_kernels.networks import BlackBoxConfig, BlackBoxNetwork, Network, WholeConfig

BASE = WholeConfig("compact", 2, 1, {"channels": 16})


class Windowed(nn.Module):
    """x2: in each layer the pixels of a window exchange what they have; every second layer has shifted windows.

    What is no multiple of a window is extended by reflection, as SwinIR has it; ``depth`` 0 is convolutions alone.
    """

    def __init__(self, side: int = 4, depth: int = 3, mean: bool = False, place: bool = False):
        super().__init__()
        torch.manual_seed(side)
        self.side, self.mean, self.place = side, mean, place
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.mixing = nn.ParameterList(torch.randn(side**2, side**2) / side for _ in range(depth))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[2:]
        x = F.pad(image, (0, -width % self.side, 0, -height % self.side), mode="reflect")
        x = self.first(x)
        for number, mixing in enumerate(self.mixing):
            shift = number % 2 * (self.side // 2)
            x = x + torch.roll(
                self._mixed(torch.roll(x, (-shift, -shift), (2, 3)), mixing, shift), (shift, shift), (2, 3)
            )
        if self.mean:
            x = x + 0.05 * x.mean((2, 3), keepdim=True)
        if self.place:
            x = x + 0.01 * torch.arange(x.shape[3])
        made = F.pixel_shuffle(self.last(x), 2)[:, :, : 2 * height, : 2 * width]
        return made * 0.2 + F.interpolate(image, scale_factor=2), torch.empty(0)

    def _mixed(self, x: Tensor, mixing: Tensor, shift: int) -> Tensor:
        n, c, height, width = x.shape
        s = self.side
        keep = torch.ones(1, 1, height, width, device=x.device)
        if shift:  # windows that would join opposite edges of the image mix nothing
            keep[:, :, -s:], keep[:, :, :, -s:] = 0, 0
        x = (x * keep).view(n, c, height // s, s, width // s, s).permute(0, 1, 2, 4, 3, 5).flatten(4) @ mixing
        x = x.view(n, c, height // s, width // s, s, s).permute(0, 1, 2, 4, 3, 5).reshape(n, c, height, width)
        return torch.tanh(x * keep)


class Making:
    """Makes always the same module, so that copies and files of it can be compared."""

    def __init__(self, **settings: object):
        self.settings = settings

    def __call__(self, scale: int, blocks: int) -> nn.Module:
        return Windowed(**self.settings)  # type: ignore[arg-type]


def refining(smallest: int = 8, **settings: object) -> WholeConfig:
    return WholeConfig("Windowed", 2, original=Network("Windowed", Making(**settings), minimum_size=smallest))


def black_box(halo: int = 24, patch_size: int = 8, smallest: int = 8, **settings: object) -> BlackBoxNetwork:
    """Seeded; ``settings`` are those of ``Windowed``, and ``share`` and ``together`` those of the configuration."""
    kept = {name: settings.pop(name) for name in ("share", "together", "quality", "qualities") if name in settings}
    side = settings.get("side", 4)
    config = BlackBoxConfig(
        BASE, refining(smallest, **settings), patch_size, halo, window=side, smallest=smallest, **kept
    )
    torch.manual_seed(4)
    return BlackBoxNetwork(config).eval().requires_grad_(False)


def swinir(scale: int) -> dict[str, Tensor] | None:
    """The tensors of a SwinIR of few numbers as spandrel has it, which mixes what it sees; None without spandrel."""
    try:
        from spandrel.architectures.SwinIR.__arch.SwinIR import SwinIR
    except (ImportError, RuntimeError):  # the latter from a torchvision that was built for another PyTorch
        return None
    torch.manual_seed(0)
    shape = {"img_size": 8, "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 4, "mlp_ratio": 2}
    network = SwinIR(**shape, upscale=scale, upsampler="pixelshuffledirect")
    for name, parameter in network.named_parameters():
        if "table" in name or (parameter.ndim == 2 and "norm" not in name):
            parameter.data.mul_(10)
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}
