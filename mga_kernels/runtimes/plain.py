"""Plans for whole networks, which are run as -D is: convolutions of our own where they fit, PyTorch, OpenVINO."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import InputError
from ..networks import MaskGuidedNetwork, ModelConfig
from ..networks.registry import Network
from ..networks.whole import WholeNetwork
from ..ops import image_to_input, output_to_image
from ..ops.grid import mirror_indices
from ..system.allocator import keep_memory
from ..system.memory import available_memory
from ..system.threads import one_thread
from .finite import is_finite
from .openvino_cpu import plan as openvino
from .plan import Plan, Planner
from .precision import SIDE, VISIBLE, describe, fast_bf16, picture
from .pytorch.modules import KEPT_SHARE


class WholePlan(Plan):
    """What all have in common: ``coarse`` keeps the image, which is enlarged when it is known what for."""

    image: Tensor

    @abstractmethod
    def _enlarge(self, image: Tensor, out: Tensor) -> None:
        """Write the enlarged ``image`` (H, W, 3) to the top left of ``out``."""

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        self.image = image
        if out is not None:
            self._enlarge(image, out)

    def decomposed(self, out: Tensor) -> None:
        self._enlarge(self.image, out)

    def select(self, k: int) -> NoReturn:
        raise InputError("a whole network has no mask, so no cells can be chosen and refined")

    def gather(self, indices: Tensor) -> NoReturn:
        self.select(0)

    def patches(self) -> NoReturn:
        self.select(0)

    def load(self, patches: Tensor) -> NoReturn:
        self.select(0)

    def refined(self) -> NoReturn:
        self.select(0)


class WholeModulePlanner:
    """``network`` on its device and in its dtype."""

    takes_place = True

    def __init__(self, network: WholeNetwork):
        self.network = network
        parameter = next(network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    @property
    def description(self) -> str:
        return f"{describe(self.dtype, self.dtype)}, in PyTorch"

    def plan(self, height: int, width: int, capacity: int) -> Plan:
        return WholeModulePlan(self, height, width)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        return bytes_of(self.network, height, width, self.dtype)


def bytes_of(network: WholeNetwork, height: int, width: int, dtype: torch.dtype) -> int:
    """Memory of a run by modules: what is alive at its peak, and the picture as numbers and as bytes."""
    original, scale = network.config.definition, network.config.scale
    pixels = max(height, original.minimum_size) * max(width, original.minimum_size)
    return pixels * (network.working_values * dtype.itemsize + 3 * scale**2 * (4 + 1))


class WholeModulePlan(WholePlan):
    def __init__(self, planner: WholeModulePlanner, height: int, width: int):
        super().__init__(planner.network.config, height, width, 0)
        self.planner = planner
        self.finite: Tensor = torch.ones((), dtype=torch.bool, device=planner.device)
        if self.device.type == "cpu":
            needed = KEPT_SHARE * planner.bytes_needed(height, width, 0)
            self.keeps_memory = needed < available_memory() and keep_memory(self)

    @property
    def device(self) -> torch.device:
        return self.planner.device

    def _enlarge(self, image: Tensor, out: Tensor) -> None:
        tensor = image_to_input(image[None].to(self.device), self.padded[0], self.padded[1])
        result = self.planner.network(tensor, self.place)
        self.finite.logical_and_(is_finite(result))  # as bytes NaN would be 0
        target = self.crop(out)
        target.copy_(output_to_image(result, *target.shape[:2])[0])


def pytorch(network: WholeNetwork, device: torch.device, dtype: torch.dtype | None) -> Planner:
    network = network.to(device, dtype or torch.float32)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype is None and device.type == "cpu" and fast_bf16():
        small = copy.deepcopy(network).bfloat16()
        if _visible_loss(network, lambda image: small(image)) < VISIBLE:
            network = small
    return WholeModulePlanner(network)


def _visible_loss(network: WholeNetwork, run: Any) -> float:
    """Root mean square, in levels of 255, by which ``run`` differs from the float32 network on the CPU."""
    with torch.no_grad(), one_thread():
        image = (255 * picture(SIDE, SIDE)).round() / 255
        return 255 * float((network(image) - run(image)).square().mean().sqrt())


class OwnPlanner:
    """The planner of a mask-guided network whose Base-Net is the whole network, and whose other parts never run."""

    def __init__(self, network: WholeNetwork, inner: Planner):
        self.network, self.inner = network, inner
        self.description = inner.description

    def plan(self, height: int, width: int, capacity: int) -> Plan:
        return OwnPlan(self, height, width)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        return self.inner.bytes_needed(height, width, 0)


class OwnPlan(WholePlan):
    def __init__(self, planner: OwnPlanner, height: int, width: int):
        super().__init__(planner.network.config, height, width, 0)
        self.inner = planner.inner.plan(height, width, 0)

    def _enlarge(self, image: Tensor, out: Tensor) -> None:
        whole = self.inner.buffer(out)
        self.inner.coarse(image, whole)
        if whole.data_ptr() != out.data_ptr():
            self.crop(out).copy_(self.inner.crop(whole))


def stand_in(definition: Network) -> Network | None:
    """Whose Base-Net, with all blocks, is the whole network in convolutions of our own."""
    candidates = definition, definition.part("divided")
    return next((found for found in candidates if found is not None and found.cpu and found.refine), None)


def own(network: WholeNetwork) -> Planner | str:
    """With convolutions of our own; or why not."""
    config = network.config
    found = stand_in(config.definition)
    if found is None:
        return f"there are none for {config.network} yet"
    settings = config.settings if found.layout else {}  # the halves of the paper have the usual widths only
    value_range = "0..255" if found.value_range == 255 else "0..1"
    if (config.colour, config.input_range) != ("rgb", value_range):
        return f"there are none for {config.colour} in {config.input_range}"
    try:
        shape = ModelConfig(found.name, config.scale, split=(config.blocks, 1), base=settings, refine=settings)
        inner = _without_weights(shape)
        inner.base.load_state_dict(network.body.state_dict())
        if getattr(inner.base, "mean", None) != getattr(network.body, "mean", None):
            return "there are none for another mean colour than that of DIV2K"
    except RuntimeError:
        return f"there are none for other widths of {config.network} than the usual ones"
    weights = found.part("cpu")
    return weights.against(inner) or OwnPlanner(network, weights(inner.eval().requires_grad_(False)))


def _without_weights(shape: ModelConfig) -> MaskGuidedNetwork:
    """A network of zeros in float32, for which no random number of the caller's is drawn."""
    with torch.device("meta"):
        network = MaskGuidedNetwork(shape)
    network = network.float().to_empty(device="cpu")
    for parameter in network.parameters():
        parameter.data.zero_()
    return network


class WholeOpenvinoPlanner(openvino.OpenvinoPlanner):
    """One graph from bytes to bytes; in bf16 where this processor has it and nothing visible is lost."""

    def __init__(self, network: WholeNetwork, dtype: torch.dtype | None = None):
        import openvino as runtime

        self.network, self.value_range = network, 1.0
        self.core = runtime.Core()
        exact = copy.deepcopy(network).float().cpu()
        side = max(openvino.EXAMPLE, network.config.definition.minimum_size)
        with torch.no_grad(), one_thread():
            self.graph = openvino._convert(self.core, exact, picture(side, side), picture(side + 5, side + 2))
        self.dtype = dtype or (torch.bfloat16 if openvino._has_bf16(self.core) else torch.float32)
        if dtype is None and self.dtype == torch.bfloat16 and _visible_loss(exact, self._run_once) >= VISIBLE:
            self.dtype = torch.float32
        version = runtime.__version__.split("-")[0]
        self.description = f"{describe(self.dtype, self.dtype)}, in OpenVINO {version}"

    def plan(self, height: int, width: int, capacity: int) -> Any:
        return WholeOpenvinoPlan(self, height, width)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        return bytes_of(self.network, height, width, self.dtype)

    def compile(self, height: int, width: int) -> Any:
        """Request: bytes (1, h, w, 3) -> bytes (1, sh, sw, 3)."""
        import openvino as runtime

        model = self.graph.clone()
        model.reshape([1, 3, height, width])
        steps = runtime.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(runtime.Type.u8).set_layout(runtime.Layout("NHWC"))
        steps.input().preprocess().convert_element_type(runtime.Type.f32).scale(255)
        steps.input().model().set_layout(runtime.Layout("NCHW"))
        self._to_bytes(steps.output())
        return self._compile(steps.build(), self.dtype)

    def _run_once(self, image: Tensor) -> Tensor:
        """A float image (1, 3, h, w) through the graph that photographs would run in."""
        scale, (height, width) = self.network.config.scale, image.shape[2:]
        out = torch.empty(1, height * scale, width * scale, 3, dtype=torch.uint8)
        openvino._run(self.compile(height, width), output_to_image(image, height, width).contiguous(), out)
        return out.permute(0, 3, 1, 2) / 255


class WholeOpenvinoPlan(WholePlan):
    def __init__(self, planner: WholeOpenvinoPlanner, height: int, width: int):
        super().__init__(planner.network.config, height, width, 0)
        self.request = planner.compile(*self.padded)
        self.picture: Tensor | None = None

    def _enlarge(self, image: Tensor, out: Tensor) -> None:
        if tuple(image.shape[:2]) != self.padded:
            rows, columns = (
                mirror_indices(n, m, image.device) for n, m in zip(image.shape[:2], self.padded, strict=True)
            )
            image = image[rows][:, columns]
        height, width = (side * self.config.scale for side in self.padded)
        picture = openvino._top_rows(out, height, width, self.picture)
        openvino._run(self.request, image.contiguous()[None], picture[None])
        if picture.data_ptr() != out.data_ptr():
            self.picture = picture
            out[:height, :width].copy_(picture[: out.shape[0], : out.shape[1]])
