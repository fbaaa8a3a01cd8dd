"""Whole-image contenders, bytes to bytes on the CPU: ours, and what a user would run instead.

Three functions of an LR image are run: -M (masked), -D (the Refine-Net over the whole feature, without the coarse
image) and the original network that the two halves were cut from, which has one upsampler where -D has two. What turns
bytes into the network's input and back is ours for all.
"""

from __future__ import annotations

import copy
import io
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import shipped_models
from mga_kernels.checkpoints.native import load_native
from mga_kernels.errors import MGAError
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeNetwork
from mga_kernels.ops import image_to_input, output_to_image

Run = Callable[[np.ndarray], np.ndarray]
OURS = "M, ours"
WHOLLY = "D, ours"
STRAIGHTFORWARD = "M, PyTorch fp32 as written"
NCNN_SECONDS = 900  # for its converter, which takes minutes where there are hundreds of layers


class Decomposed(nn.Module):
    """-D: image (1, 3, H, W) in the network's range -> (1, 3, sH, sW)."""

    def __init__(self, network: MaskGuidedNetwork):
        super().__init__()
        self.base, self.refine, self.halo = copy.copy(network.base), network.refine, network.halo
        object.__setattr__(self.base, "upsample", lambda feature: feature.new_zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        return self.refine(F.pad(self.base(image)[1], (self.halo,) * 4))


class Original(nn.Module):
    """The network before it was cut: a Base-Net with the blocks of both halves."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.whole = config.definition.base(config.scale, sum(config.split), **config.base)

    def forward(self, image: Tensor) -> Tensor:
        return self.whole(image)[0]


def lively(module: nn.Module, images: Callable[[], Tensor], value_range: float) -> None:
    """Scale the last convolution so that the picture has the contrast of a photograph.

    What random weights make is nearly flat, and would agree with anything once it is rounded to bytes.
    """
    last: list[tuple[nn.Module, Tensor]] = []
    convolutions = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    hooks = [m.register_forward_hook(lambda m, _, out: last.append((m, out))) for m in convolutions]
    try:
        picture = images()
        conv, _ = last[-1]
        gain = 0.2 * value_range / float(picture.std())
        conv.weight.data.mul_(gain)
        if conv.bias is not None:
            conv.bias.data.mul_(gain)
            conv.bias.data.add_(0.5 * value_range - float(images().mean()))
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def make_networks(name: str, scale: int, image: np.ndarray) -> tuple[MaskGuidedNetwork, Original]:
    """What ships of Base-Net and mask where something does, otherwise random weights, the same at each call.

    The Refine-Net is always random, so that forgetting it would show.
    """
    torch.manual_seed(0)
    config = ModelConfig(name, scale)
    original = Original(config).eval()
    network = MaskGuidedNetwork(config).eval()
    part = to_network(np.ascontiguousarray(image[:48, :48]), network.value_range)
    model = f"{name}-x{scale}"
    if model in shipped_models():
        shipped = load_native(model).eval()
        if isinstance(shipped, MaskGuidedNetwork):
            network.base, network.mask = shipped.base, shipped.mask
        elif isinstance(shipped, WholeNetwork):
            network.base = shipped.body
    else:
        lively(network.base, lambda: network.base(part)[0], network.value_range)
    lively(network.refine, lambda: Decomposed(network)(part), network.value_range)
    lively(original, lambda: original(part), network.value_range)
    return network, original


def to_network(image: np.ndarray, value_range: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return image_to_input(torch.from_numpy(image)[None], *image.shape[:2], value_range, dtype)  # type: ignore[call-arg]


def to_bytes(output: Tensor, value_range: float) -> np.ndarray:
    return output_to_image(output, *output.shape[2:], 1 / value_range)[0].numpy()  # type: ignore[call-arg]


def as_written(network: MaskGuidedNetwork, k: int) -> Run:
    """-M as one would write it: float32, contiguous, every operator by its definition."""

    def run(image: np.ndarray) -> np.ndarray:
        os.environ["MGA_BACKEND"] = "reference"
        try:
            tensor = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() / 255
            return (network(tensor, k)[0] * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        finally:
            del os.environ["MGA_BACKEND"]

    return run


def eager(module: nn.Module, value_range: float, dtype: torch.dtype) -> Run:
    """PyTorch as it is: float32 as loaded, bf16 in channels-last."""
    if dtype == torch.bfloat16:
        module = copy.deepcopy(module).bfloat16()
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(image: np.ndarray) -> np.ndarray:
        tensor = to_network(image, value_range, dtype)
        if dtype == torch.float32:
            tensor = tensor.contiguous()
        return to_bytes(module(tensor), value_range)

    return run


def compiled(module: nn.Module, value_range: float, dtype: torch.dtype) -> Run:
    """torch.compile with inductor and frozen weights."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    module = copy.deepcopy(module).to(dtype)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    function = torch.compile(module)

    def run(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return to_bytes(function(to_network(image, value_range, dtype)), value_range)

    return run


def onnxruntime(module: nn.Module, value_range: float, size: tuple[int, int]) -> Run:
    import onnxruntime as ort

    stream = io.BytesIO()
    example = torch.zeros(1, 3, *size)
    torch.onnx.export(module, (example,), stream, input_names=["image"], opset_version=17, dynamo=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # when it is another's turn
    session = ort.InferenceSession(stream.getvalue(), options, providers=["CPUExecutionProvider"])

    def run(image: np.ndarray) -> np.ndarray:
        output = session.run(None, {"image": to_network(image, value_range).contiguous().numpy()})[0]
        return to_bytes(torch.from_numpy(output), value_range)

    return run


def openvino(module: nn.Module, value_range: float, size: tuple[int, int], precision: str) -> Run:
    import openvino as ov

    example = torch.zeros(1, 3, 64, 64)  # tracing runs the module several times
    model = ov.convert_model(module, example_input=example, input=[(1, 3, *size)])
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(image: np.ndarray) -> np.ndarray:
        tensor = to_network(image, value_range).contiguous().numpy()
        output = request.infer([tensor], share_inputs=True, share_outputs=True)[0]
        return to_bytes(torch.from_numpy(output), value_range)

    return run


def ncnn_net(graph: str, weights: str, exact: bool = True) -> Any:
    """ncnn's own ``Net`` of these two files; ``exact`` as of ``ncnn``."""
    import ncnn as runtime

    net = runtime.Net()
    net.opt.num_threads = torch.get_num_threads()
    if exact:
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
    if net.load_param(graph) or net.load_model(weights):
        raise RuntimeError(f"ncnn cannot load {Path(graph).name}")
    return net


def ncnn(module: nn.Module, value_range: float, size: tuple[int, int], exact: bool = True) -> Run:
    """``exact``: in float32 as all that is compared with it; ncnn would store halves where the processor can."""
    import pnnx  # its own converter, which is a program

    with tempfile.TemporaryDirectory() as folder:
        traced, graph, weights = (str(Path(folder) / name) for name in ("traced.pt", "graph.param", "weights.bin"))
        torch.jit.trace(module, torch.zeros(1, 3, *size), check_trace=False).save(traced)  # type: ignore[no-untyped-call]
        shape = f"inputshape=[1,3,{size[0]},{size[1]}]f32"
        command = [pnnx.EXEC_PATH, traced, shape, "fp16=0", f"ncnnparam={graph}", f"ncnnbin={weights}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=NCNN_SECONDS)
        return ncnn_run(ncnn_net(graph, weights, exact), "in0", "out0", value_range)


def ncnn_run(net: Any, source: str, result: str, value_range: float) -> Run:
    """ncnn's ``Net`` from bytes to bytes, between these two blobs."""
    import ncnn as runtime

    def run(image: np.ndarray) -> np.ndarray:
        tensor = to_network(image, value_range)[0].contiguous().numpy()  # whose memory the extractor reads
        extractor = net.create_extractor()
        extractor.input(source, runtime.Mat(tensor))
        status, output = extractor.extract(result)
        if status:
            raise RuntimeError(f"ncnn cannot run the graph: status {status}")
        return to_bytes(torch.from_numpy(np.array(output))[None], value_range)

    return run


@dataclass(frozen=True)
class Contender:
    """``function``: "M", "D" or "original"; ``stock``: what users have without us."""

    name: str
    function: str
    make: Callable[[], Run]
    stock: bool = True


def contenders(network: MaskGuidedNetwork, original: Original, size: tuple[int, int], k: int) -> list[Contender]:
    """All of them, not made yet: making one may take long, or fail for want of a package."""
    ours = copy.deepcopy(network)
    value_range = network.value_range

    def engine(**settings: Any) -> Run:
        model = MaskGuidedSR(ours, device="cpu", **settings)

        def run(image: np.ndarray) -> np.ndarray:
            return np.asarray(model.upscale(image))

        run.info = model.info  # type: ignore[attr-defined]
        return run

    found = [
        Contender(OURS, "M", lambda: engine(k=k), stock=False),
        Contender(WHOLLY, "D", lambda: engine(mode="dense"), stock=False),
        Contender(STRAIGHTFORWARD, "M", lambda: as_written(network, k), stock=False),
    ]
    for function, module in (("D", Decomposed(network).eval()), ("original", original)):
        found += stock(function, module, value_range, size)
    return found


def stock(function: str, module: nn.Module, value_range: float, size: tuple[int, int]) -> list[Contender]:
    """What computes ``module`` without us: PyTorch in three ways, ONNX Runtime, OpenVINO and ncnn."""
    ways: dict[str, Callable[[], Run]] = {
        "PyTorch fp32": lambda: eager(module, value_range, torch.float32),
        "PyTorch bf16 channels-last": lambda: eager(module, value_range, torch.bfloat16),
        "torch.compile fp32": lambda: compiled(module, value_range, torch.float32),
        "torch.compile bf16": lambda: compiled(module, value_range, torch.bfloat16),
        "ONNX Runtime fp32": lambda: onnxruntime(module, value_range, size),
        "OpenVINO fp32": lambda: openvino(module, value_range, size, "f32"),
        "ncnn fp32": lambda: ncnn(module, value_range, size),
        "OpenVINO bf16": lambda: openvino(module, value_range, size, "bf16"),
    }
    return [Contender(f"{function}, {way}", function, make) for way, make in ways.items()]


def make(contender: Contender) -> Run | str:
    """Its function, or the reason why it cannot run here."""
    try:
        return contender.make()
    except ImportError as error:
        return f"not installed: {error.name or error}"
    except (RuntimeError, MGAError, ValueError, TypeError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
