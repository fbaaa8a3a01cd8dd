"""The plan for networks that OpenVINO runs (extra ``openvino``): its graphs, our operators between them.

Each half is one graph for each image size. Bytes become numbers and numbers bytes inside the graphs, which read and
write the memory of torch tensors, channels-last, so that nothing is copied between them and our operators.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...modes import ordinary
from ...networks import SRNetwork
from ...networks.interface import outputs, padded_size, working_bytes
from ...networks.layers import pad_by_reflection
from ...notices import quiet
from ...ops import gather_patches
from ...ops.grid import mirror_indices
from ...system.threads import one_thread
from ..plan import PatchPlan, Planner
from ..precision import describe, in_bf16, picture

if TYPE_CHECKING:
    import openvino

EXAMPLE = 16  # sides of the image with which a network is traced, at least
AT_ONCE = 128  # patches that a graph refines at once: more leave the caches
NAMES = {torch.bfloat16: "bf16", torch.float32: "f32"}


def unavailable(dtype: torch.dtype | None) -> str | None:
    """Why OpenVINO cannot run here in this dtype, or None; ``dtype`` None leaves the choice to it."""
    if dtype not in (None, *NAMES):
        return f"dtype {str(dtype).removeprefix('torch.')} was asked for, and its graphs run in bfloat16 or float32"
    try:
        import openvino
    except ImportError as error:
        return f"it is not installed ({error}); pip install 'mga_kernels[openvino]'"
    if dtype == torch.bfloat16 and not _has_bf16(openvino.Core()):
        return "bfloat16 was asked for, and it has none on this processor"
    return None


def _has_bf16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenvinoPlanner(Planner):
    """Both halves of a network as graphs of any size; raises what tracing or OpenVINO raise where they refuse."""

    description = ""

    def __init__(self, network: SRNetwork, dtype: torch.dtype | None = None):
        import openvino

        self.config, self.working_values = network.config, network.working_values
        self.core = openvino.Core()
        self.dtype = dtype or (torch.bfloat16 if _has_bf16(self.core) else torch.float32)
        self.halo, self.value_range = network.halo, network.value_range
        network = copy.deepcopy(network).float().cpu()
        small = max(EXAMPLE, self.config.definition.minimum_size)
        with torch.no_grad(), one_thread():
            example, other = picture(small, small) * self.value_range, picture(small + 5, small + 2) * self.value_range
            self.base = _convert(self.core, network.front, example, other)
            self.refine: Any = None
            self.dense_graph: Any = None  # the graph of -D, where it is another
            if network.back is not None:
                self._convert_back(network, *(outputs(network.front(image))[1] for image in (example, other)))
        self.refine_dtype = self.dtype
        if dtype is None and self.dtype == torch.bfloat16:
            base, refine = in_bf16(network)
            self.dtype = self.dtype if base else torch.float32
            self.refine_dtype = self.dtype if refine else torch.float32
        self.mask = None if network.mask_module is None else network.mask_module.to(self.dtype)
        self.description = (
            f"{describe(self.dtype, self.refine_dtype)}, in OpenVINO {openvino.__version__.split('-')[0]}"
        )

    def _convert_back(self, network: SRNetwork, feature: Tensor, other: Tensor) -> None:
        assert network.back is not None
        side = self.config.patch_size + 2 * self.halo
        self.refine = _convert(self.core, network.back, other[..., :side, :side].repeat(2, 1, 1, 1), other)
        if network.back_of_all is not None:
            self.dense_graph = _convert(self.core, network.back_of_all, feature, other)

    def plan(self, height: int, width: int, capacity: int) -> OpenvinoPlan:
        return OpenvinoPlan(self, height, width, capacity)

    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        picture = 3 * self.config.scale**2 * math.prod(padded_size(self.config, height, width))
        return working_bytes(self.config, self.working_values, height, width, self.dtype.itemsize) + picture

    def compile_base(self, height: int, width: int, coarse_image: bool) -> openvino.InferRequest:
        """Request: bytes (1, h, w, 3) -> the coarse image as bytes, if wanted, and the feature, if there is one,
        channels-last."""
        import openvino

        model = self.base.clone()
        if not coarse_image:
            model.remove_result(model.get_results()[0])
        model.reshape([1, 3, height, width])
        steps = openvino.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255 / self.value_range)
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        if coarse_image:
            self._to_bytes(steps.output(0))
        if self.refine is not None:
            self._channels_last(steps.output(1 if coarse_image else 0))
        return self._compile(steps.build(), self.dtype)

    def compile_refine(self, count: int, height: int, width: int, dense: bool = False) -> openvino.InferRequest:
        """Request: features (count, h, w, C) -> what they are refined to as bytes, channels-last.

        ``dense``: for -D, by a Refine-Net that has a call of its own for it.
        """
        import openvino

        model = (self.dense_graph if dense else self.refine).clone()
        model.reshape([count, self.config.feature_channels, height, width])
        steps = openvino.preprocess.PrePostProcessor(model)
        self._channels_last(steps.input())
        self._to_bytes(steps.output())
        return self._compile(steps.build(), self.refine_dtype)

    def _channels_last(self, end: Any) -> None:
        import openvino

        kind = getattr(openvino.Type, NAMES[self.dtype])
        end.tensor().set_element_type(kind).set_layout(openvino.Layout("NHWC"))
        end.model().set_layout(openvino.Layout("NCHW"))

    def _to_bytes(self, output: Any) -> None:
        import openvino

        def convert(node: Any) -> Any:
            ops = openvino.opset13
            scaled = ops.multiply(node, ops.constant(255 / self.value_range, openvino.Type.f32))
            return ops.clamp(ops.round(scaled, "half_to_even"), 0.0, 255.0).output(0)

        output.postprocess().custom(convert)
        output.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        output.model().set_layout(openvino.Layout("NCHW"))

    def _compile(self, model: Any, dtype: torch.dtype) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": NAMES[dtype],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # the threads of PyTorch are not pinned either, and take turns with these
        }
        return self.core.compile_model(model, "CPU", settings).create_infer_request()


def _convert(core: Any, module: nn.Module, example: Tensor, other: Tensor) -> Any:
    """The module as a graph of any height, width and batch, traced on ``example`` and compared on ``other``.

    ValueError where the graph does not compute there what the module does. The front end is called itself, because
    ``openvino.convert_model`` would report its use over the network.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with quiet():  # about sizes that become constants: compared below
        traced = torch.jit.trace(module, example, check_trace=False)
    decoder = TorchScriptPythonDecoder(traced, example_input=example)  # which must outlive the conversion
    front_end = FrontEndManager().load_by_framework("pytorch")
    graph = front_end.convert(front_end.load(decoder))
    check = graph.clone()
    check.reshape(list(other.shape))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    found = core.compile_model(check, "CPU", settings)([other.numpy()])
    for number, expected in enumerate(outputs(module(other))):
        result = torch.from_numpy(found[number])
        if result.shape != expected.shape or (result - expected).abs().max() > 1e-3 * expected.abs().max():
            raise ValueError("its graph does not compute at other sizes of image what the network does")
    return graph


def _shared(tensor: Tensor) -> Any:
    """The memory of a contiguous tensor as a tensor of OpenVINO."""
    import openvino

    if tensor.dtype == torch.bfloat16:  # numpy has no such type
        return openvino.Tensor(tensor.view(torch.int16).numpy(), list(tensor.shape), openvino.Type.bf16)
    return openvino.Tensor(tensor.numpy(), shared_memory=True)


class OpenvinoPlan(PatchPlan):
    """Graphs for one size of image and one number of patches; those of -D are made when they are first asked for."""

    def __init__(self, planner: OpenvinoPlanner, height: int, width: int, capacity: int):
        super().__init__(planner.config, height, width, capacity)
        self.planner = planner
        config, smallest = planner.config, planner.config.definition.minimum_size
        self.seen = max(height, smallest), max(width, smallest)  # what the network is given
        self.base = planner.compile_base(*self.seen, True)
        self.trunk: Any = None
        self.dense_graph: Any = None
        channels, scale, p = config.feature_channels, config.scale, config.patch_size
        self.feature = torch.zeros(1, *self.padded, channels, dtype=planner.dtype)
        self.computed = _top_rows(self.feature[0], *self.seen)[None]
        self.picture: Tensor | None = None  # the coarse image, where it is no part of the result's memory
        runs = math.ceil(capacity / AT_ONCE)
        self.at_once, side = math.ceil(capacity / max(runs, 1)), p + 2 * planner.halo
        self.patch_graph = planner.compile_refine(self.at_once, side, side) if capacity else None
        self.taken = torch.empty(0, side, side, channels, dtype=planner.dtype)
        self.rest = torch.zeros(self.at_once, side, side, channels, dtype=planner.dtype)  # the last patches
        self.sharp = torch.zeros(runs * self.at_once, scale * p, scale * p, 3, dtype=torch.uint8)

    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        if tuple(image.shape[:2]) != self.seen:
            rows, columns = (
                mirror_indices(n, m, image.device) for n, m in zip(image.shape[:2], self.seen, strict=True)
            )
            image = image[rows][:, columns]
        if out is None:
            self.trunk = self.trunk or self.planner.compile_base(*self.seen, False)
            _run(self.trunk, image.contiguous()[None], self.computed)
        else:
            height, width = (side * self.config.scale for side in self.seen)
            picture = _top_rows(out, height, width, self.picture)
            features = [self.computed] if self.config.feature_channels else []
            _run(self.base, image.contiguous()[None], picture[None], *features)
            if picture.data_ptr() != out.data_ptr():
                self.picture = picture
                out[:height, :width].copy_(picture)
        self._extend()

    def _extend(self) -> None:
        """Fill the rows and columns beyond what the network has seen by reflection."""
        if self.seen == self.padded:
            return
        whole = self.feature.permute(0, 3, 1, 2)
        if self.computed.data_ptr() != self.feature.data_ptr():
            whole.copy_(pad_by_reflection(self.computed.permute(0, 3, 1, 2), *self.padded))
            return
        rows = mirror_indices(self.seen[0], self.padded[0], self.feature.device)[self.seen[0] :]
        whole[:, :, self.seen[0] :].copy_(whole.index_select(2, rows))

    def select(self, k: int) -> tuple[Tensor, Tensor]:
        assert self.planner.mask is not None
        return self.planner.mask.select(self.feature.permute(0, 3, 1, 2), k, self.config.selection)

    def gather(self, indices: Tensor) -> None:
        feature = self.feature.permute(0, 3, 1, 2)
        self.taken = gather_patches(feature, indices, self.config.patch_size, self.planner.halo).permute(0, 2, 3, 1)

    def patches(self) -> Tensor:
        return self.taken.permute(0, 3, 1, 2).clone()

    def load(self, patches: Tensor) -> None:
        self.taken = patches.permute(0, 2, 3, 1).to(self.planner.dtype).contiguous()

    def refined(self) -> Tensor:
        step = self.at_once
        for start in range(0, len(self.taken), step):
            patches = self.taken[start : start + step]
            if len(patches) < step:
                self.rest[: len(patches)].copy_(patches)
                patches = self.rest
            _run(self.patch_graph, patches, self.sharp[start : start + step])
        return self.sharp[: len(self.taken)].permute(0, 3, 1, 2)

    def decomposed(self, out: Tensor) -> None:
        halo = self.planner.halo if self.planner.dense_graph is None else 0
        height, width = (side + 2 * halo for side in self.padded)
        self.dense_graph = self.dense_graph or self.planner.compile_refine(
            1, height, width, self.planner.dense_graph is not None
        )
        feature = torch.nn.functional.pad(self.feature, (0, 0, halo, halo, halo, halo))
        _run(self.dense_graph, feature, out[None])


@ordinary()
def _top_rows(memory: Tensor, height: int, width: int, other: Tensor | None = None) -> Tensor:
    """The first rows of ``memory`` (H, W, C) where they are as wide as is wanted, else ``other`` or new memory."""
    if memory.is_contiguous() and memory.shape[1] == width:
        return memory[:height]
    return memory.new_zeros(height, width, memory.shape[2]) if other is None else other


def _run(request: Any, source: Tensor, *results: Tensor) -> None:
    """Infer from the memory of ``source`` into that of ``results``."""
    request.set_input_tensor(_shared(source))
    for number, result in enumerate(results):
        request.set_output_tensor(number, _shared(result))
    request.infer()
