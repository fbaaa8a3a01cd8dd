"""The kernels of convolutions: the portable ones against exact arithmetic, those of an instruction set against them.

The file of intrinsics runs on an emulation of them, and on a processor that has the instructions also as it is.
MGA_EMULATION_FLAGS adds to the flags of the compiler, for a sanitizer or a planted fault.
"""

import math
import os
import platform
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from pair_layers import convolve, planes_of
from programs import CSRC, environment, kept_program

from mga_kernels import _native
from mga_kernels.errors import BackendError
from mga_kernels.runtimes.cpu import choose
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.pairs import Planes

HERE = Path(__file__).resolve().parent / "convolution_kernels"
MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
SMALLEST = 2.0**-126  # of the numbers that are not denormal
COMPILER = os.environ.get("CXX", "g++")
HAS_BF16 = _native.HOST_ERROR is None and _native.host().cpu_features().get("avx512_bf16", False)


def rounded(value: Fraction, bits: int) -> float:
    """To ``bits`` significant ones, to the nearest, of two to the even one; denormal numbers become zero."""
    if value == 0:
        return 0.0
    exponent = math.frexp(float(value))[1] - bits
    unit = Fraction(2) ** exponent
    found = float(round(value / unit) * unit)
    return math.copysign(found if abs(found) >= SMALLEST else 0.0, value)


def sum_of_products(x: list[float], weight: list[float]) -> float:
    """What vdpbf16ps makes of channels: of each pair the odd one first, each product added with one rounding."""
    total = 0.0
    for pair in range(0, len(x), 2):
        for channel in (pair + 1, pair):
            total = rounded(Fraction(total) + Fraction(x[channel]) * Fraction(weight[channel]), 24)
    return total


def numbers(count: int, exponents: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """bf16 numbers of any sign and mantissa, with exponents from a range; some are zero."""
    exponent = torch.randint(*exponents, (count,), generator=generator)
    mantissa = 1 + torch.randint(0, 128, (count,), generator=generator) / 128
    sign = torch.randint(-1, 2, (count,), generator=generator)
    return (sign * mantissa * 2.0**exponent).float()


@pytest.mark.parametrize(
    ("of_x", "of_weight"),
    [
        ((-8, 8), (-12, 2)),
        ((-70, -40), (-70, -40)),
        ((-126, -100), (-30, 30)),
        ((40, 60), (40, 62)),
        ((-60, 60), (-60, 60)),
    ],
)
def test_products_are_added_as_the_hardware_does_it(of_x, of_weight, generator):
    """Of 6 channels at 40 pixels, to the last bit; sums near the smallest numbers too."""
    x, weight = numbers(240, of_x, generator), numbers(24, of_weight, generator)
    image, out = x.reshape(6, 1, 40), torch.full((4, 1, 40), float("nan"))
    with torch.no_grad():
        convolve(Conv(weight.reshape(4, 6, 1, 1), floats=True), planes_of(image), out)
    for o, row in enumerate(weight.reshape(4, 6).tolist()):
        expected = [sum_of_products(column, row) for column in x.reshape(6, 40).T.tolist()]
        assert out[o, 0].tolist() == expected


def test_denormal_numbers_are_zeros():
    """What comes in: 2^-127 times 2^20 is nothing. PyTorch rounds to bf16 without losing them, so they do come in."""
    x = torch.tensor([2.0**-127, 2.0**-126, -(2.0**-130), 2.0**-126 + 2.0**-133]).reshape(1, 1, 4).repeat(2, 1, 1)
    assert (x.bfloat16().float() == x).all()
    for scale, expected in ((2.0**20, [0.0, 2.0**-105, 0.0, 2.0**-105 * (1 + 2.0**-7)]), (0.25, [0.0] * 4)):
        out = torch.full((2, 1, 4), float("nan"))
        convolve(Conv(torch.full((2, 2, 1, 1), scale), floats=True), planes_of(x), out)
        assert out[0, 0].tolist() == expected


def test_results_are_rounded_to_the_nearest_even():
    values = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -(1 + 2.0**-8), 3.4e38, 2.0**-127, 2.0**-126]
    expected = [1.0, 1 + 2.0**-6, 1 + 2.0**-7, -1.0, math.inf, 0.0, 2.0**-126]
    out, channels = Planes(8, 1, 1), [*values, math.nan]
    convolve(Conv(torch.zeros(8, 2, 1, 1), torch.tensor(channels)), planes_of(torch.zeros(2, 1, 1)), out)
    assert out.read()[:7, 0, 0].tolist() == expected
    assert out.read()[7].isnan().all()


def build(isa: str, *flags: str) -> Path:
    """The program that compares."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"there is no {COMPILER}")
    sources = [HERE / "compare.cpp", CSRC / "convolution/isa/portable.cpp", CSRC / f"convolution/isa/{isa}.cpp"]
    more = os.environ.get("MGA_EMULATION_FLAGS", "").split()
    command = [COMPILER, "-std=c++17", "-ffp-contract=off", f"-DMGA_ISA={isa}", *flags, *more]
    command += [f"-I{CSRC}", *sources]

    def make(folder: Path) -> Path:
        subprocess.run([*command, "-o", folder / "compare"], check=True, env=environment())
        return folder / "compare"

    return kept_program(HERE, command, make)


def processor_has(source: Path, folder: Path) -> bool:
    """What the first line of a file of kernels asks for; its machine is that of the line."""
    features = re.match(r"// Instruction set of \w+: ([\w ]+)\.", source.read_text())[1].split()
    question = " && ".join(f'__builtin_cpu_supports("{feature}")' for feature in features)
    (folder / "question.c").write_text(f"int main() {{ return {question} ? 0 : 1; }}")
    subprocess.run([COMPILER, folder / "question.c", "-o", folder / "question"], check=True, env=environment())
    return subprocess.run([folder / "question"]).returncode == 0


@pytest.mark.parametrize("how", ["emulated", "native"])
@pytest.mark.parametrize("isa", sorted({path.stem for path in (CSRC / "convolution/isa").glob("*.cpp")} - {"portable"}))
def test_every_instruction_set_is_the_definition(isa, how, tmp_path):
    """Every file in isa/ on a processor that has its instructions, and on others if there is an emulation of them."""
    source, emulation = CSRC / f"convolution/isa/{isa}.cpp", HERE / f"{isa}_emulation"
    if f"// Instruction set of {MACHINE}:" not in source.read_text():
        pytest.skip(f"{isa} is not for {MACHINE}")
    if how == "emulated" and not emulation.exists():
        pytest.skip(f"there is no emulation of {isa}")
    if how == "native" and not processor_has(source, tmp_path):
        pytest.skip(f"this processor has no {isa}")
    emulated = ["-O0", "-Wno-psabi", f"-I{emulation}"]  # compiling costs more than running
    program = build(isa, *(emulated if how == "emulated" else ["-O1"]))
    result = subprocess.run([program], capture_output=True, text=True, env=environment())
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout.split()[0]) > 3000
    assert result.stdout.endswith(f"comparisons of {isa}\n")


def test_the_variable_of_the_operators_chooses_the_kernels(forks):
    """In a process of its own for each set, because it is asked for once."""
    program = (
        "from mga_kernels import _native, info\n"
        "print(_native.convolution_kernels(), info.collect()['cpu']['kernels'], flush=True)\n"
    )
    sets = ["baseline", "", *(["avx512", "avx512_bf16"] if HAS_BF16 else [])]
    told = {isa: forks.run(program, MGA_CPU_ISA=isa) for isa in sets}
    kernels = "{'operators': 'baseline', 'convolutions': 'portable: MGA_CPU_ISA is baseline, and the portable kernels"
    assert told["baseline"].startswith(f"('portable', False) {kernels}")
    assert told[""].startswith("('avx512_bf16', True)" if HAS_BF16 else "('portable', False)")
    if HAS_BF16:
        assert told["avx512"].startswith("('portable', False)")
        assert "avx512 in float32" in told["avx512"]
        assert "avx512 in float32 and avx512_bf16 in bfloat16" in told["avx512_bf16"]
        assert told["avx512_bf16"] == told[""]
    elif _native.map_kernels()[1]:
        assert f"{_native.map_kernels()[0]} in float32" in told[""]


def test_an_instruction_set_that_is_not_there_is_an_error(monkeypatch):
    def refuse():
        raise RuntimeError("Error in f at x.cpp:1: MGA_CPU_ISA=mmx: this processor has no such instruction set\nstack")

    monkeypatch.setattr(_native, "LIBRARY_ERROR", None)
    monkeypatch.setattr(torch.ops.mga.map_kernels, "default", refuse, raising=False)
    with pytest.raises(BackendError, match=r"^MGA_CPU_ISA=mmx: this processor has no such instruction set$"):
        choose.slow(choose.STORAGES["float32"])
