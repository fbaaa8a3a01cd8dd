"""Published networks cut in two, so that a file of one becomes mask-guided without loss (``mga convert``).

The Base-Net is the network with the first of its blocks and an upsampler of its own: a copy of the network's, or a
light one, a convolution and a pixel shuffle, where the network's works on enlarged features and costs as much as all
its blocks (PAN, MSRResNet, SRResNet, RCAN). The Refine-Net is what is left: the other blocks and the upsampler. In the
halves of the paper the coarse feature is what the Base-Net upsamples, and the Refine-Net adds to it. Here it is the
state of the network at the cut, all that the other blocks and the skips around them need, so that Base-Net and
Refine-Net over the whole image (-D) are the published network exactly. With blocks added behind the last one it is what
the network is extended by.

A state consists of parts, side by side in the feature: the trunk's own, from which the mask is made; what a long skip
holds; what the fusion of all blocks has summed so far; and, for networks that add to the enlarged image, the image.

A patch has a halo of one LR pixel, which the convolutions of the upsampler use up. Networks whose layers look at the
whole of their input (SRResNet, RCAN, IMDN) see the patch there, and RFDN's attention does without its max-pool, for
which a patch is too small: for these networks -A and -D are different functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import imdn, msrresnet, pan, rcan, rfdn, srresnet
from .layers import PixelShuffleUpsampler, conv, stepwise_upsampler, upsampling_steps
from .margins import Enlarge, Step, cropped, upsampled
from .registry import Network

GREY = 0.5  # taken off the image of a state, so that bfloat16 holds it twice as exactly

State = tuple[Tensor, ...]


def image_part(image: Tensor) -> Tensor:
    """(N, 3, H, W) in 0..1 -> (N, 4, H, W): with ones, which tell the image from the zeros around it."""
    return torch.cat([image - GREY, torch.ones_like(image[:, :1])], dim=1)


def enlarged(part: Tensor, scale: int, margin: int) -> Tensor:
    """The image of ``image_part``, bilinearly enlarged, without its margin of LR pixels. Zeros around it count for
    nothing, so that its border is continued as it is where there is no margin."""
    part = cropped(F.interpolate(part, scale_factor=scale, mode="bilinear", align_corners=False), margin * scale)
    return part[:, :3] / part[:, 3:] + GREY


class _Half(nn.Module):
    """Blocks of a network, and the way from its state to an image. ``parts``: channels of the parts of the state.

    ``light``: a convolution before a pixel shuffle, in the Base-Net's place of the network's own upsampler.
    """

    parts: tuple[int, ...]
    scale: int
    light: nn.Conv2d | None

    def _lighten(self, light: bool, scale: int, channels: int) -> bool:
        """Whether the upsampler is the light one, which it makes."""
        self.scale, self.light = scale, conv(channels, 3 * scale * scale, 3) if light else None
        return light

    def advance(self, *state: Tensor) -> State:
        """Run the blocks."""
        raise NotImplementedError

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        """(N, 3, sH, sW), less a margin of LR pixels to each side."""
        raise NotImplementedError

    def _steps(self) -> list[Step]:
        """Those of the network's own upsampler."""
        raise NotImplementedError

    def _upsampled(self, feature: Tensor, margin: int) -> Tensor:
        if self.light is None:
            return upsampled(feature, self._steps(), margin)
        return F.pixel_shuffle(self.light(feature), self.scale)  # of a Base-Net, where there is no margin


class _Base(_Half):
    """Image (N, 3, H, W) -> coarse image (N, 3, sH, sW) and state (N, C, H, W)."""

    def start(self, image: Tensor) -> State:
        raise NotImplementedError

    def upsample(self, feature: Tensor) -> Tensor:
        return self.finish(0, *feature.split(self.parts, dim=1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = torch.cat(self.advance(*self.start(image)), dim=1)
        return self.upsample(feature), feature


class _Refine(_Half):
    """Patches of the state with a halo, (N, C, p+2, p+2) -> HR patches (N, 3, sp, sp)."""

    halo = 1

    def forward(self, patches: Tensor) -> Tensor:
        return self.finish(self.halo, *self.advance(*patches.split(self.parts, dim=1)))

    def whole(self, feature: Tensor) -> Tensor:
        """The state of a whole image (N, C, H, W) -> (N, 3, sH, sW)."""
        return self.finish(0, *self.advance(*feature.split(self.parts, dim=1)))


class _Pan(_Half):
    def __init__(
        self,
        scale: int,
        blocks: int,
        features: int = pan.FEATURE_CHANNELS,
        channels: int = pan.UPSAMPLING_CHANNELS,
        light: bool = False,
    ):
        super().__init__()
        self.parts = features, features, 4
        self.SCPA_trunk = nn.Sequential(*(pan.SCPA(features) for _ in range(blocks)))
        self.trunk_conv = conv(features, features, 3)
        if self._lighten(light, scale, features):
            return
        for i in range(1, len(upsampling_steps(scale)) + 1):
            setattr(self, f"upconv{i}", conv(features if i == 1 else channels, channels, 3))
            setattr(self, f"att{i}", pan.PixelAttention(channels))
            setattr(self, f"HRconv{i}", conv(channels, channels, 3))
        self.conv_last = conv(channels, 3, 3)

    def advance(self, *state: Tensor) -> State:
        x, shallow, image = state
        return self.SCPA_trunk(x), shallow, image

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, shallow, image = state
        return self._upsampled(self.trunk_conv(x) + shallow, margin) + enlarged(image, self.scale, margin)

    def _steps(self) -> list[Step]:
        steps: list[Step] = []
        for i, step in enumerate(upsampling_steps(self.scale), start=1):
            steps += [Enlarge(step, shuffle=False), getattr(self, f"upconv{i}"), getattr(self, f"att{i}")]
            steps += [_leaky(pan.SLOPE), getattr(self, f"HRconv{i}"), _leaky(pan.SLOPE)]
        return [*steps, self.conv_last]


class PanBase(_Base, _Pan):
    def __init__(self, scale: int, blocks: int, **settings: Any):
        super().__init__(scale, blocks, **settings)
        self.receptive_field = 2 * blocks + (4 if self.light is None else 3)
        self.conv_first = conv(3, self.parts[0], 3)

    def start(self, image: Tensor) -> State:
        shallow = self.conv_first(image)
        return shallow, shallow, image_part(image)


class PanRefine(_Refine, _Pan):
    def __init__(self, scale: int, blocks: int, **settings: Any):
        super().__init__(scale, blocks, **settings)
        self.receptive_field = 2 * blocks + 3


class _Msrresnet(_Half):
    def __init__(self, scale: int, blocks: int, channels: int = msrresnet.FEATURE_CHANNELS, light: bool = False):
        super().__init__()
        self.parts = channels, 4
        self.recon_trunk = nn.Sequential(*(msrresnet.ResidualBlock(channels) for _ in range(blocks)))
        if self._lighten(light, scale, channels):
            return
        for i, step in enumerate(upsampling_steps(scale), start=1):
            setattr(self, f"upconv{i}", conv(channels, channels * step * step, 3))
        self.HRconv = conv(channels, channels, 3)
        self.conv_last = conv(channels, 3, 3)

    def advance(self, *state: Tensor) -> State:
        x, image = state
        return self.recon_trunk(x), image

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, image = state
        return self._upsampled(x, margin) + enlarged(image, self.scale, margin)

    def _steps(self) -> list[Step]:
        steps: list[Step] = []
        for i, step in enumerate(upsampling_steps(self.scale), start=1):
            steps += [getattr(self, f"upconv{i}"), Enlarge(step), _leaky(msrresnet.SLOPE)]
        return [*steps, self.HRconv, _leaky(msrresnet.SLOPE), self.conv_last]


class MsrresnetBase(_Base, _Msrresnet):
    def __init__(self, scale: int, blocks: int, **settings: Any):
        super().__init__(scale, blocks, **settings)
        self.receptive_field = 2 * blocks + (3 if self.light is None else 2)
        self.conv_first = conv(3, self.parts[0], 3)

    def start(self, image: Tensor) -> State:
        return F.leaky_relu(self.conv_first(image), msrresnet.SLOPE), image_part(image)


class MsrresnetRefine(_Refine, _Msrresnet):
    def __init__(self, scale: int, blocks: int, **settings: Any):
        super().__init__(scale, blocks, **settings)
        self.receptive_field = 2 * blocks + 2


class _Distilling(_Half):
    """RFDN and IMDN: all blocks are fused by one convolution 1x1, whose sum so far is a part of the state."""

    fea_conv: nn.Conv2d  # of the Base-Net

    def _build(self, scale: int, channels: int, name: str, blocks: Sequence[nn.Module], slope: float) -> None:
        self.parts, self.slope, self.names = (channels,) * 3, slope, [f"{name}{i + 1}" for i in range(len(blocks))]
        for block_name, block in zip(self.names, blocks, strict=True):
            setattr(self, block_name, block)
        self.c = nn.Sequential(conv(len(blocks) * channels, channels, 1))
        self.LR_conv = conv(channels, channels, 3)
        self._lighten(False, scale, channels)  # it is light as it is
        self.upsampler = PixelShuffleUpsampler(channels, 3, scale)

    def advance(self, *state: Tensor) -> State:
        x, shallow, fused = state
        outputs = []
        for name in self.names:
            x = getattr(self, name)(x)
            outputs.append(x)
        return x, shallow, fused + self.c(torch.cat(outputs, dim=1))

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        _, shallow, fused = state
        return self._upsampled(self.LR_conv(F.leaky_relu(fused, self.slope)) + shallow, margin)

    def _steps(self) -> list[Step]:
        return [*map(_step, self.upsampler)]

    def start(self, image: Tensor) -> State:
        shallow = self.fea_conv(image)
        return shallow, shallow, torch.zeros_like(shallow)


class _Rfdn(_Distilling):
    def __init__(self, scale: int, blocks: int, channels: int = rfdn.FEATURE_CHANNELS, pool: bool = False):
        super().__init__()
        self._build(scale, channels, "B", [rfdn.RFDB(channels, pool) for _ in range(blocks)], rfdn.SLOPE)


class RfdnBase(_Rfdn, _Base):
    def __init__(self, scale: int, blocks: int, pool: bool = True, **settings: Any):
        super().__init__(scale, blocks, pool=pool, **settings)
        self.fea_conv = conv(3, self.parts[0], 3)


class RfdnRefine(_Rfdn, _Refine):
    pass


class _Imdn(_Distilling):
    def __init__(
        self,
        scale: int,
        blocks: int,
        channels: int = imdn.FEATURE_CHANNELS,
        distilled: int = imdn.DISTILLED,
        squeezed: int = imdn.FEATURE_CHANNELS // 16,
    ):
        super().__init__()
        modules = [imdn.IMDB(channels, distilled, squeezed) for _ in range(blocks)]
        self._build(scale, channels, "IMDB", modules, imdn.SLOPE)


class ImdnBase(_Imdn, _Base):
    def __init__(self, scale: int, blocks: int, **settings: Any):
        super().__init__(scale, blocks, **settings)
        self.fea_conv = conv(3, self.parts[0], 3)


class ImdnRefine(_Imdn, _Refine):
    pass


class _Srresnet(_Half):
    def __init__(
        self,
        scale: int,
        blocks: int,
        norm: str = "instance",
        channels: int = srresnet.FEATURE_CHANNELS,
        light: bool = False,
    ):
        super().__init__()
        has_norm = norm == "instance"
        self.parts = channels, channels
        self.residual = nn.Sequential(*(srresnet.ResidualBlock(has_norm, channels) for _ in range(blocks)))
        self.conv_mid = conv(channels, channels, 3, bias=not has_norm)
        self.bn_mid = nn.InstanceNorm2d(channels, affine=True) if has_norm else nn.Identity()
        if self._lighten(light, scale, channels):
            return
        self.upscale = stepwise_upsampler(channels, scale, bias=not has_norm, slope=srresnet.SLOPE)
        self.conv_output = conv(channels, 3, 9, bias=not has_norm)

    def advance(self, *state: Tensor) -> State:
        x, shallow = state
        return self.residual(x), shallow

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, shallow = state
        return self._upsampled(self.bn_mid(self.conv_mid(x)) + shallow, margin)

    def _steps(self) -> list[Step]:
        return [*map(_step, self.upscale), self.conv_output]


class SrresnetBase(_Base, _Srresnet):
    def __init__(self, scale: int, blocks: int, norm: str = "instance", **settings: Any):
        super().__init__(scale, blocks, norm=norm, **settings)
        self.conv_input = conv(3, self.parts[0], 9, bias=norm == "none")

    def start(self, image: Tensor) -> State:
        shallow = F.leaky_relu(self.conv_input(image), srresnet.SLOPE)
        return shallow, shallow


class SrresnetRefine(_Refine, _Srresnet):
    pass


class _Rcan(_Half):
    def __init__(
        self,
        scale: int,
        blocks: int,
        blocks_per_group: int = rcan.BLOCKS_PER_GROUP,
        channels: int = rcan.FEATURE_CHANNELS,
        squeezed: int = rcan.FEATURE_CHANNELS // rcan.REDUCTION,
        mean: Sequence[float] = rcan.MEAN,
        light: bool = False,
    ):
        super().__init__()
        self.parts, self.mean = (channels, channels), tuple(mean)
        groups = (rcan.ResidualGroup(blocks_per_group, channels, squeezed) for _ in range(blocks))
        self.body = nn.Sequential(*groups)
        self.conv_after_body = conv(channels, channels, 3)
        if self._lighten(light, scale, channels):
            return
        self.upsampler = stepwise_upsampler(channels, scale)
        self.conv_last = conv(channels, 3, 3)

    def advance(self, *state: Tensor) -> State:
        x, shallow = state
        return self.body(x), shallow

    def finish(self, margin: int, *state: Tensor) -> Tensor:
        x, shallow = state
        image = self._upsampled(self.conv_after_body(x) + shallow, margin)
        return image + rcan.mean_like(image, self.mean)

    def _steps(self) -> list[Step]:
        return [*map(_step, self.upsampler), self.conv_last]


class RcanBase(_Base, _Rcan):
    def __init__(self, scale: int, blocks: int, **settings: Any):
        super().__init__(scale, blocks, **settings)
        self.conv_first = conv(3, self.parts[0], 3)

    def start(self, image: Tensor) -> State:
        shallow = self.conv_first(image - rcan.mean_like(image, self.mean))
        return shallow, shallow


class RcanRefine(_Refine, _Rcan):
    pass


def _leaky(slope: float) -> Callable[[Tensor], Tensor]:
    return lambda x: F.leaky_relu(x, slope)


def _step(module: nn.Module) -> Step:
    return Enlarge(module.upscale_factor) if isinstance(module, nn.PixelShuffle) else module


def _network(name: str, base: type[nn.Module], refine: type[nn.Module], parts: int, default: int, **facts: Any):
    """``parts`` of as many channels as ``settings`` say make the feature; PAN and MSRResNet add the image."""
    setting = "features" if name == "pan" else "channels"
    image = 4 if name in ("pan", "msrresnet") else 0
    return Network(
        f"{name}-split",
        base,
        refine,
        feature_channels=lambda settings: parts * settings.get(setting, default) + image,
        mask_channels=lambda settings: settings.get(setting, default),
        **facts,
    )


NETWORKS = (
    _network("pan", PanBase, PanRefine, 2, pan.FEATURE_CHANNELS, split=(12, 4), working_values=1900),
    _network(
        "msrresnet", MsrresnetBase, MsrresnetRefine, 1, msrresnet.FEATURE_CHANNELS, split=(12, 4), working_values=2400
    ),
    _network(
        "rfdn",
        RfdnBase,
        RfdnRefine,
        3,
        rfdn.FEATURE_CHANNELS,
        split=(3, 1),
        value_range=255.0,
        minimum_size=15,
        working_values=800,
    ),
    _network("imdn", ImdnBase, ImdnRefine, 3, imdn.FEATURE_CHANNELS, split=(4, 2), working_values=1000),
    _network(
        "srresnet",
        SrresnetBase,
        SrresnetRefine,
        2,
        srresnet.FEATURE_CHANNELS,
        split=(12, 4),
        minimum_size=2,
        working_values=2400,
    ),
    _network(
        "rcan", RcanBase, RcanRefine, 2, rcan.FEATURE_CHANNELS, split=(7, 3), value_range=255.0, working_values=2400
    ),
)
