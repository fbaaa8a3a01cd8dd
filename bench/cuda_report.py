"""What nvcc makes of every CUDA kernel, on each architecture: ``python bench/cuda_report.py``. Needs no GPU.

Compiles csrc/ops/*/*.cu with the flags of the build and writes bench/results/cuda_kernels.json and .md: registers,
spilled bytes, stack, and shared memory that is fixed at compile time. Ends with status 2 if a kernel spills.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
RESULTS = ROOT / "bench/results"
ARCHS = ("80", "90", "100", "120")
FLAGS = ["-std=c++17", "-O3", "-lineinfo", "--Werror", "all-warnings", "-Xptxas", "-v", "-Xcompiler", "-fPIC,-Wall"]
FLAGS.append(f"-I{CSRC}")
FIGURES = ("registers", "spilled", "stack", "shared")


def nvcc() -> str | None:
    """The compiler of a toolkit that has its headers beside it, as setup.py finds it."""
    for place in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if place and (Path(place) / "bin/nvcc").exists():
            return str(Path(place) / "bin/nvcc")
    return None


def compiler() -> str:
    text = subprocess.run([nvcc() or "nvcc", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release .*", text)
    return f"nvcc {found[0] if found else 'of unknown release'}"


def readable(symbols: list[str]) -> list[str]:
    """Kernel names with their template arguments, without namespaces and parameters."""
    text = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    names = []
    for name in text.splitlines():
        name = re.sub(r"\(anonymous namespace\)::|mga::", "", name.removeprefix("void "))
        names.append(re.sub(r"(?<=>)\(.*|(?<=kernel)\(.*", "", name))
    return names


def parse(log: str) -> dict[str, dict[str, int]]:
    """Figures of each kernel from what ``ptxas -v`` prints."""
    found: dict[str, dict[str, int]] = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        symbol = part[: part.index("'")]

        def number(pattern: str, part: str = part) -> int:
            match = re.search(pattern, part)
            return int(match[1]) if match else 0

        found[symbol] = {
            "registers": number(r"Used (\d+) registers"),
            "spilled": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
            "stack": number(r"(\d+) bytes stack frame"),
            "shared": number(r"(\d+) bytes smem"),
        }
    return dict(zip(readable(list(found)), found.values(), strict=True))


def compile_report(source: Path, arch: str) -> dict[str, dict[str, int]]:
    program = nvcc()
    if program is None:
        sys.exit("bench/cuda_report.py: no CUDA toolkit was found; set CUDA_HOME to its root")
    with tempfile.TemporaryDirectory() as folder:
        target = ["-gencode", f"arch=compute_{arch},code=sm_{arch}", "-c", str(source), "-o", f"{folder}/kernels.o"]
        result = subprocess.run([program, *FLAGS, *target], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"bench/cuda_report.py: {source.name} does not compile for sm_{arch}:\n{result.stderr}")
    return parse(result.stdout + result.stderr)


def markdown(report: dict) -> str:
    lines = [
        "# CUDA kernels as compiled",
        "",
        f"By `python bench/cuda_report.py`, {report['compiler']}: registers a thread, and bytes of shared memory that",
        "is fixed at compile time where there is any. No kernel spills or uses a stack unless it says so.",
        "",
        "| file | kernel | " + " | ".join(f"sm_{arch}" for arch in report["archs"]) + " |",
        "|---|---|" + "---|" * len(report["archs"]),
    ]
    for file, kernels in report["kernels"].items():
        for kernel, by_arch in kernels.items():
            cells = []
            for arch in report["archs"]:
                figures = by_arch[arch]
                extra = [f"{figures['shared']:,} B"] if figures["shared"] else []
                extra += [f"{figures[name]} B {name}" for name in ("spilled", "stack") if figures[name]]
                cells.append(", ".join([str(figures["registers"]), *extra]))
            lines.append(f"| {file} | `{kernel}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    from mga.files.records import to_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=ARCHS, help=f"compute capabilities, default {' '.join(ARCHS)}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the two files")
    options = parser.parse_args(arguments)
    kernels: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for source in sorted(CSRC.rglob("*.cu"), key=lambda source: source.name):
        for arch in options.archs:
            print(f"{source.name} for sm_{arch}", file=sys.stderr, flush=True)
            for kernel, figures in compile_report(source, arch).items():
                kernels.setdefault(source.name, {}).setdefault(kernel, {})[arch] = figures
    report = {"compiler": compiler(), "archs": list(options.archs), "kernels": kernels}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cuda_kernels.json").write_text(to_json(report, levels=3))
    (options.out / "cuda_kernels.md").write_text(markdown(report))
    spills = [
        f"{file}: {kernel} on sm_{arch}"
        for file, by_kernel in kernels.items()
        for kernel, by_arch in by_kernel.items()
        for arch, figures in by_arch.items()
        if figures["spilled"]
    ]
    for line in spills:
        print(f"bench/cuda_report.py: registers are spilled in {line}", file=sys.stderr)
    return 2 if spills else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "python")]
    sys.exit(main())
