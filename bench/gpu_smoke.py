"""The first minute on a GPU: what is built and found, and one photograph on it against float32 on the CPU.

    python bench/gpu_smoke.py

Ends with status 1 where an operator has no kernel there, or the pictures are not alike.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from images import test_image

from mga_kernels import MaskGuidedSR, info, ops


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = parser.parse_args(arguments).device
    image, status = test_image(128, 96), 0
    for name, reasons in info.collect()["operators"].items():
        for backend, reason in reasons.items():
            if backend in ("cuda", "triton") and reason is not None:
                print(f"{name} on {backend}: {reason}")
                status |= device == "cuda"
    started = time.perf_counter()
    model = MaskGuidedSR.from_pretrained("fsrcnn-x4", k=100, device=device)
    found = torch.from_numpy(model.upscale(image)).float()
    seconds = time.perf_counter() - started
    exact = MaskGuidedSR.from_pretrained("fsrcnn-x4", k=100, device="cpu", dtype="float32", runtime="pytorch")
    used = {name: ops.last_backend(name) for name in ops.operators() if ops.last_backend(name)}
    difference = float((found - torch.from_numpy(exact.upscale(image)).float()).abs().mean())
    print(f"a photograph {model.info()['photographs']}: {seconds:.2f} s with all preparations")
    print(f"backends: {used}")
    print(f"mean difference from float32 on the CPU: {difference:.4f} of 255")
    return int(bool(status) or not difference < 1)


if __name__ == "__main__":
    sys.exit(main())
