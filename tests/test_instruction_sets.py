"""The CPU kernels as older processors run them: the operators' tests again, in a process of each instruction set."""

from pathlib import Path

import pytest

from mga_kernels import info

TESTS = Path(__file__).resolve().parent
OPERATORS = ["mask_head", "dynamic_filter", "output_to_image", "high_pass"]
SETS = sorted(path.stem for path in (TESTS.parent / "csrc/ops/isa").glob("*.cpp"))


@pytest.mark.slow
@pytest.mark.parametrize("instruction_set", SETS)
def test_operators(instruction_set, forks):
    assert "baseline" in SETS
    found = forks.result("from mga_kernels import _native; _native.instruction_set()", MGA_CPU_ISA=instruction_set)
    if found.returncode:
        assert "this processor or this build has no such instruction set" in found.stderr
        pytest.skip(f"this processor has no {instruction_set}")
    if info.collect()["cpu"]["kernels"]["operators"] == instruction_set:
        pytest.skip(f"{instruction_set} is what these tests run on in this process")
    files = [TESTS / f"test_{operator}.py" for operator in OPERATORS]
    result = forks.pytest("-k", "cpu and (definition or formula)", *files, MGA_CPU_ISA=instruction_set)
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout


def test_an_unknown_set_is_refused(forks):
    code = "import torch; from mga_kernels import ops; ops.output_to_image(torch.zeros(1, 3, 4, 4), 4, 4)"
    result = forks.result(code, MGA_CPU_ISA="mmx", MGA_BACKEND="cpu")
    assert result.returncode == 1
    assert "MGA_CPU_ISA=mmx: this processor or this build has no such instruction set" in result.stderr


def test_the_kernels_that_are_named_are_there():
    """Not the best set of the processor, for which operators may have none: on ARM they have those of any processor."""
    files = {path.stem for path in (TESTS.parent / "csrc/ops/isa").glob("*.cpp")}
    assert info.collect()["cpu"]["kernels"]["operators"] in files
