"""Whole images: ours, -M as written, and -D and the original in PyTorch bf16; MGA_BENCH_SIZE=4K takes a larger one.

All contenders in every runtime, with memory and plots: `make images`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import images
import numpy as np
import pytest
import torch
from contenders import OURS, STRAIGHTFORWARD, contenders, make, make_networks
from rivals import Race

SCALE = 4
NAMES = (OURS, STRAIGHTFORWARD, "D, PyTorch bf16 channels-last", "original, PyTorch bf16 channels-last")


@pytest.mark.parametrize("network_name", ["fsrcnn", "pan", "rfdn"])
def test_images(network_name: str, benchmark: Callable, printed: list[str]) -> None:
    size = os.environ.get("MGA_BENCH_SIZE", "270p")
    width, height = (side // SCALE for side in images.SIZES[size])
    image = images.test_image(width, height)
    network, original = make_networks(network_name, SCALE, image)
    listed = [c for c in contenders(network, original, (height, width), network.config.k) if c.name in NAMES]
    runs = {c.name: make(c) for c in listed}
    with torch.no_grad():
        pictures: dict[str, np.ndarray] = {name: run(image) for name, run in runs.items()}  # type: ignore[operator]
        images.Agreement(listed, SCALE * network.config.patch_size, network.config.k).check(pictures)
        race = Race({name: lambda run=run: run(image) for name, run in runs.items()})  # type: ignore[operator,misc]
        benchmark.pedantic(race.round, rounds=5, warmup_rounds=1)
    lines = [f"  {name:45} {race.median(name) * 1e3:10.2f} ms" for name in race.calls]
    benchmark.extra_info.update({f"{name} ms": round(race.median(name) * 1e3, 3) for name in race.calls})
    printed += [f"{network_name} x{SCALE}, {size} result, bytes to bytes", *lines]
