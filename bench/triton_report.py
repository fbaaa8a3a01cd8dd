"""What the compiler makes of every Triton launch, without a GPU: ``python bench/triton_report.py``.

The launchers of the operators are called with tensors of the CPU, for the coarse features of the five networks, each
dtype and patch size; every launch that they make is compiled for each target instead of run. The result is a table of
registers, stack (where spilled registers go) and shared memory in bench/results/triton_kernels.json and .md. The exit
status is 1 where a kernel spills or needs more shared memory than the chip gives to a program.

Nothing is launched, so nothing here says whether a kernel is right or fast.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # read when a kernel is declared: interpreted ones cannot be compiled

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from mga_kernels.ops.convolve_pixels import layout as pixels

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "sm_120": 101376, "gfx942": 65536}
CHANNELS = {"FSRCNN": 12, "PAN": 40, "RFDN": 50, "SRResNet, RCAN": 64}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
PATCH_SIZES, SCALES = (2, 4, 8), (2, 3, 4)
ORDERS = ("softmax-then-pool", "pool-then-softmax")
MEMORY_FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
FIGURES = ("registers", "stack", "shared", "warps")


class NoDriver(DriverBase):
    """Answers what the JIT asks a driver before it compiles."""

    def __init__(self, target: GPUTarget):
        self.target = target

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> Any:
        return self.target.arch  # the JIT keeps compiled kernels by device

    def get_current_stream(self, device: Any = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, name: str) -> str:
        return name

    def get_benchmarker(self) -> Callable:
        raise NotImplementedError("nothing can be timed without a GPU")


@contextlib.contextmanager
def compiled(target: str, **options: Any) -> Iterator[list[Any]]:
    """Inside, launches compile for ``target`` and are collected; ``options`` are added to those of the launcher."""
    kernels: list[Any] = []
    run = JITFunction.run

    def compile_only(self, *arguments, grid, warmup, **keywords):
        kernels.append(run(self, *arguments, grid=grid, warmup=True, **keywords, **options))
        return kernels[-1]

    driver.set_active(NoDriver(TARGETS[target]))
    JITFunction.run = compile_only
    try:
        yield kernels
    finally:
        JITFunction.run = run


def figures(kernel: Any, target: str) -> tuple[int, ...]:
    """As FIGURES says: registers and bytes of stack of a thread, bytes of shared memory and warps of a program."""
    if target.startswith("gfx"):
        text = kernel.asm["amdgcn"]
        number = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", text, re.MULTILINE)}
        stack = number["private_segment_fixed_size"]
        registers = number["vgpr_count"]
        if number["vgpr_spill_count"] + number["sgpr_spill_count"] > 0:
            stack = max(stack, 4 * (number["vgpr_spill_count"] + number["sgpr_spill_count"]))
    else:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        registers, stack = (int(re.search(rf"{word}:(\d+)", text)[1]) for word in ("REG", "STACK"))  # type: ignore[index]
    return registers, stack, kernel.metadata.shared, kernel.metadata.num_warps


def excess(row: tuple[int, ...], target: str) -> str | None:
    """Why a kernel is refused, or None."""
    _, stack, shared, _ = row
    if stack:
        return f"{stack} bytes of stack"
    if shared > SHARED_LIMIT[target]:
        return f"{shared} bytes of shared memory, of {SHARED_LIMIT[target]}"
    return None


def launch(op: str, *arguments: Any) -> None:
    folder = op.rstrip("_")
    getattr(importlib.import_module(f"mga_kernels.ops.{folder}.triton"), op)(*arguments)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _feature(channels: int, p: int, dtype: torch.dtype, layout: str = "channels-last") -> torch.Tensor:
    return torch.empty(1, channels, 8 * p, 16 * p, dtype=dtype).contiguous(memory_format=MEMORY_FORMATS[layout])


def _indices() -> torch.Tensor:
    return torch.zeros(1, 16, dtype=torch.int32)


def mask_head_launches() -> Iterator[tuple]:
    forms = [(p, 2, ORDERS[0], "ieee") for p in PATCH_SIZES]
    forms += [(4, 2, ORDERS[1], "ieee"), (4, 1, ORDERS[0], "ieee"), (4, 2, ORDERS[0], "tf32")]
    for c in CHANNELS.values():
        for dtype in FLOATS:
            for p, classes, order, precision in forms:
                if precision == "tf32" and dtype != torch.float32:
                    continue
                shapes = (c, c, 3, 3), (c,), (classes, c, 3, 3), (classes,)
                arguments = (_feature(c, p, dtype), *(torch.empty(s, dtype=dtype) for s in shapes), p, order)
                form = f"p={p} {order if classes == 2 else '1 channel'}{' tf32' if precision == 'tf32' else ''}"
                yield f"C={c} {_name(dtype)} {form}", "mask_head", arguments, precision == "tf32"


def dynamic_filter_launches() -> Iterator[tuple]:
    for dtype in (*FLOATS, torch.float64):
        for c in (1, *CHANNELS.values()):
            weights = torch.empty(25, c, 1, 1, dtype=dtype), torch.empty(25, dtype=dtype)
            arguments = (torch.empty(1, 8, 16, dtype=dtype), torch.empty(1, c, 8, 16, dtype=dtype), *weights)
            yield f"S={c} {_name(dtype)}", "dynamic_filter", arguments, False


def gather_launches() -> Iterator[tuple]:
    for c in CHANNELS.values():
        for dtype in FLOATS:
            for p in PATCH_SIZES:
                for layout in MEMORY_FORMATS:
                    arguments = (_feature(c, p, dtype, layout), _indices(), p, 1)
                    yield f"C={c} {_name(dtype)} p={p} {layout}", "gather_patches", arguments, False


def paste_launches() -> Iterator[tuple]:
    for side in sorted({p * s for p in PATCH_SIZES for s in SCALES}):
        for layout, memory_format in MEMORY_FORMATS.items():
            image = torch.empty(1, 3, 4 * side, 4 * side).contiguous(memory_format=memory_format)
            for dtype in (*FLOATS, torch.uint8):
                patches = torch.empty(16, 3, side, side, dtype=dtype).contiguous(memory_format=memory_format)
                case = f"q={side} {_name(dtype)} {layout}"
                yield case, "paste_patches_", (image.to(dtype), patches, _indices()), False
            for p, s in ((p, s) for p in PATCH_SIZES for s in SCALES if p * s == side):
                for dtype in FLOATS:
                    patches = torch.empty(16, 3 * s * s, p, p, dtype=dtype).to(memory_format=torch.channels_last)
                    for target in (dtype, torch.uint8):
                        case = f"p={p} x{s} {_name(dtype)} into {_name(target)} {layout}"
                        yield case, "paste_shuffled_", (image.to(target), patches, _indices(), s, 1.0), False


def edge_launches() -> Iterator[tuple]:
    packed = torch.empty(1, 64, 128, 3, dtype=torch.uint8)
    planar = packed.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for layout, image in {"packed": packed, "planar": planar}.items():
        for dtype in FLOATS:
            yield f"{_name(dtype)} {layout}", "image_to_input", (image, 64, 128, 1.0, dtype), False
            output = image.permute(0, 3, 1, 2).to(dtype)
            yield f"{_name(dtype)} {layout}", "output_to_image", (output, 64, 128, 1.0), False


# Channels, outputs, size of the kernel and what else a layer has, as the networks' plans for GPUs have them.
PIXEL_LAYERS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "3x3 C=48, attention": (48, 48, 3, {"gate": 2, "skip": True}),
    "3x3 C=64, skip": (64, 64, 3, {"skip": True, "activation": 1}),
    "3x3 C=64 to 256, shuffle 2": (64, 256, 3, {"shuffle": 2}),
    "3x3 C=64 to bytes x4": (64, 48, 3, {"bytes": True, "shuffle": 4}),
}


def pixel_launches() -> Iterator[tuple]:
    for name, layer in PIXEL_LAYERS.items():
        yield f"{name} float16", "convolve_pixels_", _pixel_arguments(torch.float16, *layer), False


def _pixel_arguments(dtype: torch.dtype, channels: int, outputs: int, size: int, has: dict[str, Any]) -> tuple:
    height, width, s = 32, 64, has.get("shuffle", 1)
    whole = pixels.padded(outputs)
    x, weight = torch.empty(height, width, channels, dtype=dtype), torch.empty(size**2, channels, whole, dtype=dtype)
    out = torch.empty(s * height, s * width, outputs // s**2, dtype=dtype)
    out = torch.empty(1, *out.shape, dtype=torch.uint8) if has.get("bytes") else out
    skip = torch.empty_like(out) if has.get("skip") else None
    finite = torch.ones((), dtype=torch.bool) if has.get("bytes") else None
    numbers = size, 1, s, has.get("gate", 0), has.get("activation", 0), [], 1.0
    return out, x, weight, torch.empty(5, whole), skip, None, None, None, finite, None, *numbers


def launches() -> Iterator[tuple]:
    """Every launch as its case, its operator, the operator's arguments, and whether TF32 is allowed."""
    makers = mask_head_launches, dynamic_filter_launches, gather_launches, paste_launches, edge_launches, pixel_launches
    for maker in makers:
        yield from maker()


def compile_cases(target: str, pattern: str) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """Operator, case, kernel and figures of the launches whose "operator case" matches the pattern."""
    result = []
    for case, op, arguments, tf32 in launches():
        if not re.search(pattern, f"{op} {case}"):
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        with compiled(target) as kernels:
            launch(op, *arguments)
        if not kernels:
            raise RuntimeError(f"{op} {case} launched nothing")
        result += [(op, case, kernel.metadata.name, figures(kernel, target)) for kernel in kernels]
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """The largest figures of each kernel on each target, for people."""
    lines = [
        f"Every launch, compiled without a GPU by `python bench/triton_report.py` with Triton {triton.__version__}.",
        "Each cell: most registers of a thread / most bytes of stack / most bytes of shared memory of a program.",
        "",
        f"| kernel | launches | {' | '.join(TARGETS)} |",
        f"|---|---|{'---|' * len(TARGETS)}",
    ]
    for kernel in dict.fromkeys(row["kernel"] for row in rows):
        of_kernel = [row for row in rows if row["kernel"] == kernel]
        cells = []
        for target in TARGETS:
            most = [max((row[target][i] for row in of_kernel if target in row), default=None) for i in range(3)]
            cells.append(" / ".join(map(str, most)))
        lines.append(f"| {kernel} | {len(of_kernel)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    from mga.files.records import to_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help='regular expression for "operator case"')
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results", help="folder of the two files")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args(arguments)
    rows: dict[tuple, dict[str, Any]] = {}
    refused = []
    with ProcessPoolExecutor(options.jobs) as pool:
        futures = {target: pool.submit(compile_cases, target, options.only) for target in TARGETS}
        for target, future in futures.items():
            for op, case, kernel, row in future.result():
                rows.setdefault((op, case), {"op": op, "case": case, "kernel": kernel})[target] = row
                if reason := excess(row, target):
                    refused.append(f"{op} {case} on {target}: {reason}")
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"triton": triton.__version__, "figures": FIGURES, "launches": list(rows.values())}
    (options.out / "triton_kernels.json").write_text(to_json(report))
    (options.out / "triton_kernels.md").write_text(table(list(rows.values())))
    print((options.out / "triton_kernels.md").read_text())
    for line in refused:
        print(f"bench/triton_report.py: {line}", file=sys.stderr)
    return int(bool(refused))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "python")]
    sys.exit(main())
