"""A published network as the start of a mask-guided one: the same weights in two halves (``networks.divided``)."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, Network, WholeNetwork
from mga_kernels.networks.divided import Layout
from mga_kernels.networks.registry import package_networks, users_networks
from mga_kernels.runtimes.cpu.region_plan import RegionWeights

from ..files.records import Record
from ..training.start import start_as_probability


def _whole(teacher: object, name: str) -> WholeNetwork:
    if not isinstance(teacher, WholeNetwork):
        what = "mask-guided already" if getattr(teacher, "masked", True) else "several networks, one for each class"
        raise InputError(f"convert: {name} is {what}; give the file of a whole network")
    return teacher


def check_convertible(teacher: object, name: str) -> WholeNetwork:
    """InputError, in one sentence, where the network is not one that can be converted."""
    teacher = _whole(teacher, name)
    if teacher.config.definition.cut() is None:
        known = ", ".join(known.name for known in (*package_networks(), *users_networks()) if known.cut() is not None)
        raise InputError(f"convert: {name} is {teacher.config.network}, which is not cut in two yet; known: {known}")
    if teacher.config.colour != "rgb":
        raise InputError(f"convert: {name} works on {teacher.config.colour}; only networks of RGB can be converted")
    return teacher


def whole_only(teacher: object) -> bool:
    """Whether it is a whole network that is not cut in two."""
    return isinstance(teacher, WholeNetwork) and teacher.config.definition.cut() is None


def check_refinable(teacher: object, name: str) -> WholeNetwork:
    """InputError, in one sentence, where its pictures cannot be refined in regions."""
    teacher = _whole(teacher, name)
    config = teacher.config
    if config.colour != "rgb":
        raise InputError(f"convert: {name} works on {config.colour}; only networks of RGB can be converted")
    if teacher.reach.front is None:
        raise InputError(
            f"convert: {name} is {config.network}, which looks at the whole image, so that parts of an image cannot be "
            "refined by themselves"
        )
    weights = RegionWeights.against(teacher)
    if weights is not None:
        raise InputError(f"convert: {name} cannot refine regions: {weights}")
    return teacher


def can_lighten(teacher: WholeNetwork) -> bool:
    """Whether its upsampler is more than a convolution and a pixel shuffle."""
    return not _cut(teacher)[1].fusion


def check_split(teacher: WholeNetwork, split: tuple[int, int]) -> None:
    """InputError, which lists what is possible, where the two do not add up to the network's blocks."""
    blocks = teacher.config.blocks
    if sum(split) == blocks and min(split) > 0:
        return
    if blocks < 2:
        raise InputError(f"convert: {teacher.config.network} has {blocks} block, which cannot be split; use --extend")
    possible = ", ".join(f"{first}+{blocks - first}" for first in range(1, blocks))
    raise InputError(
        f"convert: --split {split[0]}+{split[1]} is not the {blocks} blocks of this {teacher.config.network}; "
        f"possible: {possible}"
    )


@torch.no_grad()
def halves(
    teacher: WholeNetwork,
    split: tuple[int, int],
    patch_size: int = 8,
    k: int = 0,
    light: bool = False,
    seed: int = 0,
) -> MaskGuidedNetwork:
    """The mask-guided network with the teacher's weights, fp32: -D of it is the teacher, in fp32 to rounding.

    ``split``: blocks of the two halves. Those beyond the teacher's are new and change nothing at first. -D differs from
    an RFDN with max-pools, which the Refine-Net does without. With ``light`` the Base-Net has a light upsampler, with
    random weights, instead of a copy of the teacher's. The mask starts as a probability, untrained.
    """
    config, (cut, layout) = teacher.config, _cut(teacher)
    factor = 255.0 if config.input_range == "0..255" else 1.0
    settings = _settings(teacher, factor)
    base, refine = dict(settings), dict(settings)
    refine.pop("pool", None)
    if light:
        base["light"] = True
    torch.manual_seed(seed)
    network = MaskGuidedNetwork(ModelConfig(cut.name, config.scale, patch_size, k, split, base=base, refine=refine))
    state = _in_range(teacher.body.state_dict(), layout, factor / network.value_range)
    first = split[0]
    copied = dict(_part(state, layout, range(first))) | _fused(state, layout, 0, first)
    if light:
        own = network.base.state_dict()
        copied = own | {name: t for name, t in copied.items() if name in own}
    network.base.load_state_dict(copied)
    kept = _new(network.refine.state_dict(), layout, config.blocks - first)
    before = tuple(f"{name}." for name in (layout.head, *layout.before))
    refined = {name: t for name, t in _part(state, layout, range(first, sum(split))) if not name.startswith(before)}
    network.refine.load_state_dict(kept | refined | _fused(state, layout, first, sum(split)))
    start_as_probability(network.mask)
    return network.eval().requires_grad_(False)


def tail_parameters(network: MaskGuidedNetwork) -> list[nn.Parameter]:
    """Those of the Base-Net that the Refine-Net does not depend on: all between its state and its image."""
    layout = network.config.definition.layout
    assert layout is not None
    parts = [layout.head, *layout.before, rf"{layout.blocks}\d+", *filter(None, [layout.fusion])]
    state = rf"({'|'.join(parts)})\."
    return [parameter for name, parameter in network.base.named_parameters() if not re.match(state, name)]


def _cut(teacher: WholeNetwork) -> tuple[Network, Layout]:
    """The network that it becomes, and where its weights go."""
    cut = teacher.config.definition.cut()
    assert cut is not None  # or it would not be convertible
    assert cut.layout is not None
    return cut, cut.layout


def _settings(teacher: WholeNetwork, factor: float) -> Record:
    """Those of the teacher; its mean colour in the range of the halves, 0..255."""
    settings = dict(teacher.config.settings)
    if "mean" in settings:
        settings["mean"] = [value * 255 / factor for value in settings["mean"]]
    return settings


def _in_range(state: dict[str, Tensor], layout: Layout, factor: float) -> dict[str, Tensor]:
    """The weights for values that are ``factor`` times smaller than the network's own; no bias stands before them."""
    state = {name: tensor.clone() for name, tensor in state.items()}
    state[f"{layout.head}.weight"] *= factor
    for name in (f"{layout.ends}.weight", f"{layout.ends}.bias"):
        if name in state:
            state[name] /= factor
    return state


def _part(state: dict[str, Tensor], layout: Layout, blocks: range):
    """(name, tensor) of these blocks, counted from 0 and renumbered, and of all that is no block and no fusion."""
    for name, tensor in state.items():
        found = re.match(rf"({layout.blocks})(\d+)(\..*)", name)
        if found is None:
            if not layout.fusion or not name.startswith(f"{layout.fusion}."):
                yield name, tensor
        elif (number := int(found[2]) - layout.first) in blocks:
            yield f"{found[1]}{number - blocks.start + layout.first}{found[3]}", tensor


def _fused(state: dict[str, Tensor], layout: Layout, start: int, stop: int) -> dict[str, Tensor]:
    """The columns of the fusion that belong to the blocks ``start`` to ``stop``; zeros for new ones."""
    if not layout.fusion:
        return {}
    weight, bias = state[f"{layout.fusion}.weight"], state[f"{layout.fusion}.bias"]
    channels = weight.shape[0]
    columns = weight[:, start * channels : stop * channels]
    new = weight.new_zeros(channels, (stop - start) * channels - columns.shape[1], 1, 1)
    return {
        f"{layout.fusion}.weight": torch.cat([columns, new], dim=1),
        f"{layout.fusion}.bias": bias if start == 0 else torch.zeros_like(bias),
    }


def _new(state: dict[str, Tensor], layout: Layout, known: int) -> dict[str, Tensor]:
    """The random weights of blocks from number ``known`` on, so that they change nothing."""
    for name, tensor in state.items():
        found = re.match(rf"{layout.blocks}(\d+)\.(.*)", name)
        if found and int(found[1]) - layout.first >= known and any(found[2].startswith(f"{s}.") for s in layout.silent):
            tensor.zero_()
    return state
