"""What the compiler makes of every Triton launch, without a GPU: ``python bench/triton_report.py``.

The launchers of the operators are called with tensors of the CPU, for the coarse features of the five networks, each
dtype and patch size, and for the layers of networks; every launch that they make is compiled for each target instead
of run. The result is a table of registers, stack (where spilled registers go) and shared memory in
bench/results/triton_kernels.json and .md, and of convolutions what their machine code for NVIDIA's chips is made of.
The exit status is 1 where a kernel spills or needs more shared memory than the chip gives to a program, and where a
convolution multiplies no matrices, has no loads of 16 bytes or uses local memory.

Nothing is launched, so nothing here says whether a kernel is right or fast.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
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
from triton_launches import launches

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "sm_120": 101376, "gfx942": 65536}
FIGURES = ("registers", "stack", "shared", "warps")
MATRIX = {"HMMA", "HGMMA", "UTCHMMA"}  # what multiplies matrices on sm_80 and sm_120, on sm_90, on sm_100
OPCODE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)


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


@contextlib.contextmanager
def signatures(target: str) -> Iterator[set[str]]:
    """Inside, launches run nothing: what each is compiled for is collected, by which Triton tells kernels apart."""
    found: set[str] = set()
    run = JITFunction.run

    def only_ask(self, *arguments, grid, warmup, **keywords):
        *_, binder = self.device_caches[driver.active.get_current_device()]
        _, specialization, options = binder(*arguments, **keywords, debug=False)
        found.add(f"{self.fn.__name__} {specialization} {options}")

    driver.set_active(NoDriver(TARGETS[target]))
    JITFunction.run = only_ask
    try:
        yield found
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


def disassembly(kernel: Any) -> str:
    """Machine code for a chip of NVIDIA, by the nvdisasm that Triton brings."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.nvdisasm.path, "-c", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def instructions(code: str) -> dict[str, int]:
    """How many multiply matrices, load 16 bytes or less from global memory, and use local memory."""
    found = dict.fromkeys(("matrix", "wide loads", "narrow loads", "local"), 0)
    for opcode in OPCODE.findall(code):
        name, *how = opcode.split(".")
        found["matrix"] += name in MATRIX
        found["local"] += name in ("LDL", "STL")
        if name in ("LDG", "LDGSTS"):
            found["wide loads" if "128" in how else "narrow loads"] += 1
    return found


def weakness(found: dict[str, int]) -> str | None:
    """Why the machine code of a convolution is refused, or None."""
    for name in ("matrix", "wide loads"):
        if not found[name]:
            return f"no {name}" if name == "wide loads" else "no product of matrices"
    return f"{found['local']} uses of local memory" if found["local"] else None


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


Compiled = tuple[str, str, str, tuple[int, ...], dict[str, int] | None]


def compile_cases(target: str, pattern: str) -> list[Compiled]:
    """Operator, case, kernel, figures and, of convolutions on chips of NVIDIA, instructions of the launches.

    Of those whose "operator case" matches the pattern.
    """
    result = []
    for case, op, arguments, tf32 in launches():
        if not re.search(pattern, f"{op} {case}"):
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        with compiled(target) as kernels:
            launch(op, *arguments)
        if not kernels:
            raise RuntimeError(f"{op} {case} launched nothing")
        for kernel in kernels:
            counted = op == "convolve_pixels_" and target.startswith("sm")
            code = instructions(disassembly(kernel)) if counted else None
            result.append((op, case, kernel.metadata.name, figures(kernel, target), code))
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
    return "\n".join(lines + table_of_code([row for row in rows if "code" in row])) + "\n"


def table_of_code(rows: list[dict[str, Any]]) -> list[str]:
    """Lines about the machine code of convolutions; none without any."""
    targets = [target for target in TARGETS if all(target in row["code"] for row in rows)]
    if not rows or not targets:
        return []
    lines = [
        "",
        "Convolutions, by their machine code (nvdisasm): instructions that multiply matrices / that load 16 bytes from",
        "global memory / that load fewer (of the epilogue and of what is added) / that use local memory.",
        "",
        f"| layer | {' | '.join(targets)} |",
        f"|---|{'---|' * len(targets)}",
    ]
    for row in rows:
        cells = [" / ".join(map(str, row["code"][target].values())) for target in targets]
        lines.append(f"| {row['case']} | {' | '.join(cells)} |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    from mga.files.records import to_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help='regular expression for "operator case"')
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results", help="folder of the two files")
    parser.add_argument("--add", action="store_true", help="to what the files there hold of other launches")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args(arguments)
    rows: dict[tuple, dict[str, Any]] = {}
    refused = []
    with ProcessPoolExecutor(options.jobs) as pool:
        futures = {target: pool.submit(compile_cases, target, options.only) for target in TARGETS}
        for target, future in futures.items():
            for op, case, kernel, row, code in future.result():
                known = rows.setdefault((op, case), {"op": op, "case": case, "kernel": kernel})
                known[target] = row
                if code is not None:
                    known.setdefault("code", {})[target] = code
                reason = excess(row, target) or (None if code is None else weakness(code))
                if reason is not None:
                    refused.append(f"{op} {case} on {target}: {reason}")
    options.out.mkdir(parents=True, exist_ok=True)
    kept = json.loads((options.out / "triton_kernels.json").read_text())["launches"] if options.add else []
    rows = {(row["op"], row["case"]): row for row in kept} | rows
    order = {(op, case): i for i, (case, op, *_) in enumerate(launches())}
    rows = {key: rows[key] for key in sorted(rows.keys() & order.keys(), key=lambda key: order[key])}
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
