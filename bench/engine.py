"""RFDN x4 on photographs, bytes to bytes: our -M against what runs the whole network -D, on the CPU.

    python bench/engine.py [--size 960x540] [--rounds 9]

The contenders take turns in one process and are checked against each other first. They are: -M through its plan; -M in
PyTorch, float32, every operator by its definition; -D in PyTorch, bf16 and channels-last; -D in OpenVINO with bf16,
where that is installed (`pip install openvino`). -D computes no coarse image, and the conversions from and to bytes
are ours for all. Medians go to bench/results/engine_rfdn-x4_cpu.json and to the standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mga.metrics import psnr_y
from mga_kernels import MaskGuidedSR, __version__, plans
from mga_kernels.checkpoints import load_model
from mga_kernels.networks import MaskGuidedNetwork
from mga_kernels.ops import image_to_input, output_to_image

Run = Callable[[np.ndarray], np.ndarray]


class Decomposed(torch.nn.Module):
    """The two networks one after the other over the whole image; the coarse image is not computed."""

    def __init__(self, network: MaskGuidedNetwork):
        super().__init__()
        self.base, self.refine = network.base, network.refine

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        base = self.base
        shallow = x = base.fea_conv(image)
        outputs = []
        for i in range(1, base.blocks + 1):
            x = getattr(base, f"B{i}")(x)
            outputs.append(x)
        feature = base.LR_conv(base.c(torch.cat(outputs, dim=1))) + shallow
        return self.refine(F.pad(feature, (1, 1, 1, 1)))


def to_network(image: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return image_to_input(torch.from_numpy(image)[None], *image.shape[:2], 255.0, dtype)


def to_bytes(output: torch.Tensor) -> np.ndarray:
    return output_to_image(output, *output.shape[2:], 1 / 255)[0].numpy()


def contenders(size: tuple[int, int], k: int) -> dict[str, Run]:
    planned = MaskGuidedSR(load_model("rfdn-x4"), k=k, device="cpu")
    assert not isinstance(plans.prepare(planned.model), str), planned.info()
    plain = MaskGuidedSR(load_model("rfdn-x4"), k=k, device="cpu", dtype="float32")
    dense = Decomposed(load_model("rfdn-x4")).bfloat16().to(memory_format=torch.channels_last)
    runs: dict[str, Run] = {
        "M, plan": lambda image: np.asarray(planned.upscale(image)),
        "M, PyTorch float32": forced(lambda image: np.asarray(plain.upscale(image)), "reference"),
        "D, PyTorch bf16 channels-last": lambda image: to_bytes(dense(to_network(image, torch.bfloat16))),
    }
    try:
        import openvino
    except ImportError:
        return runs
    width, height = size
    example = torch.zeros(1, 3, height, width)
    model = openvino.convert_model(Decomposed(load_model("rfdn-x4")), example_input=example, input=[example.shape])
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(image: np.ndarray) -> np.ndarray:
        tensor = to_network(image).contiguous().numpy()
        output = request.infer([tensor], share_inputs=True, share_outputs=True)[0]
        return to_bytes(torch.from_numpy(output))

    return runs | {"D, OpenVINO bf16": run}


def forced(run: Run, backend: str) -> Run:
    """``run`` with every operator on one backend."""

    def wrapped(image: np.ndarray) -> np.ndarray:
        os.environ["MGA_BACKEND"] = backend
        try:
            return run(image)
        finally:
            del os.environ["MGA_BACKEND"]

    return wrapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="960x540", help="of the LR image")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--k", type=int, default=1000)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    image = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    smooth = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].float(), size=(height, width), mode="bicubic")
    photo = smooth[0].clamp(0, 255).permute(1, 2, 0).to(torch.uint8).contiguous().numpy()
    with torch.inference_mode():
        runs = contenders((width, height), args.k)
        pictures = {name: run(photo) for name, run in runs.items()}
        reference = pictures["M, PyTorch float32"]
        agreement = {name: psnr_y(picture, reference, 4) for name, picture in pictures.items()}
        for name, value in agreement.items():
            assert value > 40, f"{name} makes another picture: {value:.1f} dB"
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, run in runs.items():
                started = time.perf_counter()
                run(photo)
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = medians["M, plan"]
    record = {
        "size": args.size,
        "k": args.k,
        "threads": torch.get_num_threads(),
        "versions": {"mga_kernels": __version__, "torch": torch.__version__, "openvino": _version("openvino")},
        "seconds": {
            name: {
                "median": round(medians[name], 4),
                "min": round(min(times[name]), 4),
                "max": round(max(times[name]), 4),
            }
            for name in runs
        },
        "times_ours": {name: round(seconds / ours, 2) for name, seconds in medians.items()},
        "psnr_y_against_float32": {name: None if np.isinf(v) else round(v, 2) for name, v in agreement.items()},
    }
    target = Path(__file__).parent / "results" / "engine_rfdn-x4_cpu.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{'contender':<32} {'median':>9} {'min':>9} {'times ours':>11}")
    for name in runs:
        print(f"{name:<32} {medians[name]:>7.3f} s {min(times[name]):>7.3f} s {medians[name] / ours:>11.2f}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
