"""Both ways between this package and spandrel (extra ``spandrel``), which loads models of many architectures.

``register()`` adds the networks that are recognised here to those that spandrel loads; ``from_descriptor`` takes what
spandrel has loaded, and ``from_state`` has it load tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

try:
    from spandrel import (
        MAIN_REGISTRY,
        Architecture,
        ArchRegistry,
        ArchSupport,
        ImageModelDescriptor,
        ModelLoader,
        SizeRequirements,
    )
except (ImportError, RuntimeError) as problem:  # the latter from a torchvision that was built for another PyTorch
    raise ImportError(
        f"spandrel cannot be imported ({str(problem).splitlines()[0]}); install the extra, "
        "pip install 'mga_kernels[spandrel]', and a torchvision that was built for this PyTorch"
    ) from None

from ..errors import CheckpointError, InputError
from ..networks.black_box import WORKING_VALUES
from ..networks.copies import private_copy
from ..networks.registry import Network
from ..networks.whole import SCALES, WholeConfig, WholeNetwork
from ..notices import quiet
from .probe import picture
from .recognise import find_spelling, recognise
from .spelling import State, spellings_that

EQUAL = 1e-3  # by which values in 0..1 may differ where two ways compute the same; half of what rounding to bytes does


class PublishedNetwork(Architecture[WholeNetwork]):
    """One of the published networks that are recognised here, RGB in 0..1 whatever it works on inside."""

    def __init__(self, name: str):
        super().__init__(id=f"mga_kernels.{name}", name=name, detect=_detector(name))

    def load(self, state_dict: State) -> ImageModelDescriptor[WholeNetwork]:
        network = recognise(state_dict, "checkpoint")
        config = network.config
        return ImageModelDescriptor(
            network,
            network.state_dict(),
            architecture=self,
            purpose="SR",
            tags=[f"{config.blocks} blocks", config.colour, config.input_range],
            supports_half=False,
            supports_bfloat16=True,
            scale=config.scale,
            input_channels=3,
            output_channels=3,
            size_requirements=SizeRequirements(minimum=config.definition.minimum_size),
        )


def _detector(name: str) -> Callable[[State], bool]:
    def detect(state: State) -> bool:
        spelling = find_spelling(state)
        return spelling is not None and spelling.name == name

    return detect


def register(registry: ArchRegistry = MAIN_REGISTRY) -> list[ArchSupport]:
    """Add the networks to a registry, after those that it has; those that it got before are left. Returns the added."""
    names = sorted({spelling.name for spelling in spellings_that(lambda spelling: True)})
    supports = [ArchSupport.from_architecture(PublishedNetwork(name)) for name in names]
    return registry.add(*supports, ignore_duplicates=True)


def from_descriptor(descriptor: ImageModelDescriptor) -> WholeNetwork:
    """The network of an ImageModelDescriptor, in evaluation mode, fp32, on the CPU: a copy, which leaves that as it is.

    One that is recognised here and gives the same image becomes our own, with convolutions of ours where there are
    some. InputError for one that is not of RGB, or enlarges by another number than one of SCALES.
    """
    if not isinstance(descriptor, ImageModelDescriptor):
        raise InputError(f"spandrel: expected an ImageModelDescriptor, got {type(descriptor).__name__}")
    name, scale = descriptor.architecture.name, descriptor.scale
    if (descriptor.input_channels, descriptor.output_channels) != (3, 3) or scale not in SCALES:
        channels = f"{descriptor.input_channels} to {descriptor.output_channels} channels"
        expected = ", ".join(f"x{scale}" for scale in SCALES)
        raise InputError(f"spandrel: {name} makes x{scale} of {channels}; expected one of {expected} of RGB")
    if isinstance(descriptor.model, WholeNetwork):
        return private_copy(descriptor.model).float().cpu().eval().requires_grad_(False)
    descriptor = copy.deepcopy(descriptor, {id(descriptor.model): private_copy(descriptor.model)})
    original = Network(
        name,
        _Calling(descriptor),
        minimum_size=max(descriptor.size_requirements.minimum, 1),
        working_values=WORKING_VALUES,
    )
    network = WholeNetwork(WholeConfig(name, scale, original=original)).float().cpu().eval().requires_grad_(False)
    return _our_own(descriptor, network) or network


def from_state(state: State, name: str) -> WholeNetwork:
    """``from_descriptor`` of what spandrel makes of the tensors of a file, called ``name`` in errors.

    CheckpointError where it makes nothing of them that is a network for images of RGB.
    """
    try:
        with quiet():  # about what its authors will have to change
            descriptor = ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except Exception as error:  # whatever the code of some forty architectures raises at tensors that do not fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{name} is not loaded by spandrel: {reason}") from None
    try:
        return from_descriptor(descriptor)
    except InputError as error:
        raise CheckpointError(f"{name}: {error}") from None


@torch.no_grad()
def _our_own(descriptor: ImageModelDescriptor, network: WholeNetwork) -> WholeNetwork | None:
    """What the weights are recognised as, if that computes what ``network`` does."""
    try:
        found = recognise(descriptor.model.state_dict(), "spandrel", scale=descriptor.scale)
    except (CheckpointError, RuntimeError, IndexError, KeyError):
        return None
    image = picture()
    return found if (found(image).clamp(0, 1) - network(image)).abs().max() <= EQUAL else None


class _Calling:
    """Makes what calls a descriptor; a class, because a function within a function cannot be pickled."""

    def __init__(self, descriptor: ImageModelDescriptor):
        self.descriptor = descriptor

    def __call__(self, scale: int, blocks: int) -> Called:
        return Called(self.descriptor)


class Called(nn.Module):
    """A model as spandrel calls it, with what padding it needs: RGB (N, 3, H, W) in 0..1 -> image, and no feature."""

    def __init__(self, descriptor: ImageModelDescriptor):
        super().__init__()
        self.model = descriptor.model
        self.descriptor = descriptor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.descriptor(image.clone()), torch.empty(0)  # some of its networks write into what they are given
