"""Published networks as they are, undivided: one whose Base-Net is all of it, without a mask and a Refine-Net."""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..quantities import plain_fields
from .colour import COLOURS, INPUT_RANGES, ONLY, decode, encode
from .config import SCALES as DIVIDED_SCALES
from .config import Configuration, ModelConfig, readable
from .interface import Halves, Reach, SRNetwork
from .layers import Place
from .registry import Network, get_network

SCALES = (1, 2, 3, 4, 8, 16)


@dataclass(frozen=True)
class WholeConfig(Configuration):
    """What defines a whole network apart from its weights.

    ``network``, a name that is known, and its ``scale``, ``blocks`` and other ``settings``; ``colour`` and
    ``input_range``, what it is given (see ``networks.colour``). ``original`` is the network of a name that is not.
    """

    network: str
    scale: int
    blocks: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    colour: str = "rgb"
    input_range: str = "0..1"
    original: Network | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        plain_fields(self, "scale", "blocks")
        for name, allowed in (("scale", SCALES), ("colour", COLOURS), ("input_range", INPUT_RANGES)):
            if getattr(self, name) not in allowed:
                raise InputError(f"model: {name} {getattr(self, name)!r} is not supported; choose one of {allowed}")
        if ONLY.get(self.input_range, self.colour) != self.colour:
            given = self.input_range, ONLY[self.input_range], self.colour
            raise InputError('model: input_range "{}" is one of colour "{}", and colour is "{}"'.format(*given))

    @property
    def definition(self) -> Network:
        return self.original or get_network(self.network)

    def to_json(self) -> str:
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "original"}
        return json.dumps(facts, sort_keys=True)

    @classmethod
    @readable()
    def from_json(cls, text: str) -> WholeConfig:
        """Inverse of ``to_json``; InputError where the text is not a configuration that this version can run."""
        values = json.loads(text)
        settings = values.pop("settings").items()
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings}
        config = cls(**values, settings=settings)
        get_network(config.network)
        return config


class WholeNetwork(SRNetwork):
    """RGB (B, 3, H, W) in [0, 1], sides no less than ``minimum_size`` -> (B, 3, sH, sW), not clamped.

    Colours are converted in float32, whatever the dtype of the network (``body``) is.
    """

    config: WholeConfig
    masked, variants, input_dtype = False, ("whole",), torch.float32

    def __init__(self, config: WholeConfig):
        super().__init__()
        self.config = config
        try:
            self.body = config.definition.base(config.scale, config.blocks, **config.settings)
        except TypeError as error:
            raise InputError(f"model: {config.network} does not have this setting: {error}") from error

    @property
    def working_values(self) -> int:
        """The body's own, where it has such a number."""
        return getattr(self.body, "working_values", self.config.definition.working_values)

    @property
    def front(self) -> nn.Module:
        return self

    @property
    def reach(self) -> Reach:
        return Reach.of(self.body, None, 0)

    @property
    def staged(self) -> Network | None:
        own = self.config.definition
        return next((found for found in (own, own.part("divided")) if found and found.cpu), None)

    def halves(self) -> Halves | str:
        """A Base-Net that, with all blocks, is this network."""
        config, found = self.config, self.staged
        assert found is not None
        as_it_is = found is config.definition and found.weights.any_settings
        ranges = ("0..1", "0..255") if as_it_is else (found.input_range,)
        if config.colour != "rgb" or config.input_range not in ranges:
            return f"there are none for {config.colour} in {config.input_range}"
        if as_it_is:
            largest = 255.0 if config.input_range == "0..255" else 1.0
            return Halves(config, largest, copy.deepcopy(self.body).float())
        if config.scale not in DIVIDED_SCALES:
            return f"there are none for x{config.scale}"
        settings = config.settings if found.layout else {}  # the halves of the paper have the usual widths only
        shape = ModelConfig(found.name, config.scale, split=(config.blocks, 1), base=settings, refine=settings)
        with torch.device("meta"):  # no memory, and no random number of the caller's is drawn
            base = found.base(config.scale, config.blocks, **settings)
        body = copy.deepcopy(self.body).float()
        try:
            base.load_state_dict(body.state_dict(), assign=True)
        except RuntimeError:
            return f"there are none for other widths of {config.network} than the usual ones"
        body = body if found is config.definition else base.eval().requires_grad_(False)
        return Halves(shape, shape.value_range, body)

    def forward(self, image: Tensor, place: Place | None = None) -> Tensor:
        """``place``: where the image is a tile of a larger one, for networks that must know (``Network``)."""
        config, image = self.config, image.float()
        return decode(self._planes(image, place), config.colour, config.input_range, image, config.scale)

    def luma(self, image: Tensor) -> Tensor:
        """Luma (B, 1, sH, sW) in 16..235 as a network of luma makes it, before RGB takes off what it does not have.

        Such networks are compared by it.
        """
        result = self._planes(image.float(), None)
        result = result / 255 if self.config.input_range == "0..255" else result
        return 255 * result.clamp(0, 1) if self.config.input_range == "16..235" else 16 + 219 * result.clamp(0, 1)

    def _planes(self, image: Tensor, place: Place | None) -> Tensor:
        given = encode(image, self.config.colour, self.config.input_range).to(next(self.body.parameters()).dtype)
        result, _ = self.body(given) if place is None else self.body(given, place)
        return result.float()

    def unclamped(self, image: Tensor, *_: object) -> Tensor:
        """``forward``, called as a mask-guided network is; there is only one variant."""
        return self(image)
