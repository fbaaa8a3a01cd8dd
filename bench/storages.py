"""Seconds of networks in both storages of our convolutions, in turns: which of them a network's class calls ``faster``.

    python bench/storages.py [rfdn pan-split rcan-x4.pth ...] [--size 480x270] [--k 1000] [--rounds 9]

Takes names of networks (-M at x4; by default all that have a plan in both, with random weights), of shipped models and
files. Each makes the picture of one image of --size from bytes to bytes in pair planes of bfloat16 and in float maps;
medians of the rounds, of the clock and of the processor, and their ratios, above 1 where float32 is faster. The last
column is what the class declares, and what was found where that is something else, by the processor, whose time others
on the machine disturb less. It matters only where the kernels of both are fast. Both pictures must be one, to 40 dB.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
from contenders import make_networks
from images import LEAST_BF16, TIES, psnr, size_of, test_image

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.networks import SRNetwork
from mga_kernels.networks.registry import package_networks
from mga_kernels.runtimes.cpu.choose import STORAGES, slow

SCALE = 4


def with_both() -> list[str]:
    """Networks of two halves, as the paper divides them and as they are published."""
    found = [one for network in package_networks() for one in (network, network.cut()) if one is not None]
    return list(dict.fromkeys(one.name for one in found if one.cpu and one.refine))


def model_in(kept: str, network: SRNetwork, **settings: int) -> MaskGuidedSR:
    """As photographs run in this storage if the network's class calls it ``faster``.

    Asked for as a dtype it may have other tiles. So it is asked for only where one of the two is slow and never chosen.
    """
    assert network.staged is not None
    if any(slow(one) for one in STORAGES.values()):
        return MaskGuidedSR(network, device="cpu", runtime="own", dtype=kept, **settings)
    kind = network.staged.part("cpu")
    declared, kind.faster = kind.faster, kept
    try:
        return MaskGuidedSR(network, device="cpu", runtime="own", **settings)
    finally:
        kind.faster = declared


def measure(network: SRNetwork, name: str, size: tuple[int, int], k: int, rounds: int) -> str:
    """A line of the table."""
    image = test_image(*size)
    settings = {"k": k} if network.masked else {}
    models = {kept: model_in(kept, network, **settings) for kept in STORAGES}
    exact, narrow = (models[kept].upscale(image) for kept in ("float32", "bfloat16"))
    cell = network.config.scale * network.config.patch_size if network.masked else 1
    likeness = psnr(narrow, exact, cell, math.ceil(TIES * k) if network.masked else 0)
    if likeness < LEAST_BF16:
        raise SystemExit(f"storages: {name} makes another picture in bfloat16: {likeness:.1f} dB")
    times: dict[str, list[tuple[float, float]]] = {kept: [] for kept in models}
    for _ in range(rounds):
        for kept, model in models.items():
            begun = time.perf_counter(), time.process_time()
            model.upscale(image)
            times[kept].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    (clock, processor), (clock_narrow, processor_narrow) = (
        [statistics.median(values) for values in zip(*times[kept], strict=True)] for kept in ("float32", "bfloat16")
    )
    cells = [f"{clock_narrow:.4f}", f"{clock:.4f}", f"{clock_narrow / clock:.2f}"]
    cells += [f"{processor_narrow:.4f}", f"{processor:.4f}", f"{processor_narrow / processor:.2f}"]
    assert network.staged is not None
    declared = network.staged.part("cpu").faster
    found = "float32" if processor < processor_narrow else "bfloat16"
    verdict = declared if declared == found else f"{declared}, found {found}"
    return f"| {' | '.join([name, *cells, f'{likeness:.1f}', verdict])} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = with_both()
    parser.add_argument("networks", nargs="*", default=known, metavar="NAME")
    parser.add_argument("--size", type=size_of, default=(480, 270), help="of the image, WIDTHxHEIGHT (default 480x270)")
    parser.add_argument("--k", type=int, default=1000, help="cells that are refined (default 1000)")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args(arguments)
    kernels = ", ".join(f"{one.kernels()} in {name}{' (slow)' * bool(slow(one))}" for name, one in STORAGES.items())
    print(f"{args.size[0]}x{args.size[1]}, K = {args.k}, {torch.get_num_threads()} threads, kernels: {kernels}\n")
    print("| network | bfloat16, s | float32, s | ratio | of the processor: bfloat16 | float32 | ratio | dB | faster |")
    print("|---|" + "--:|" * 7 + "---|")
    for name in args.networks:
        network = make_networks(name, SCALE, test_image(*args.size))[0] if name in known else load_checkpoint(name)
        print(measure(network, name, args.size, args.k, args.rounds), flush=True)


if __name__ == "__main__":
    main()
