"""Benches run on any processor of x86-64 as on one that has no more than AVX2: ``--held avx2``.

Our kernels, PyTorch's, oneDNN's, which OpenVINO has too, and MKL's are held down by their variables, which they read
when they are loaded. ONNX Runtime and ncnn have none.
"""

from __future__ import annotations

import argparse
import os
import sys

HELD = {
    "avx2": {
        "MGA_CPU_ISA": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}
FREE = ("ONNX Runtime", "ncnn")  # runtimes that cannot be held


def add_held(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--held", choices=HELD, help="run as on a processor with no more than this")


def hold(name: str | None) -> None:
    """Start the program anew, unless it is held already."""
    wanted = HELD.get(name or "", {})
    if any(os.environ.get(variable) != value for variable, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
