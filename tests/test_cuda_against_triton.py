"""Where an operator has CUDA C++ and Triton kernels, both give the same; on the CPU the comparison itself is tried."""

import pytest
import torch
from operator_cases import assert_agree, cases, moved

from mga_kernels import ops

OPERATORS = sorted(cases(torch.Generator(), torch.float32))


def test_every_operator_has_a_case():
    assert OPERATORS == sorted(ops.operators())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("op", OPERATORS)
def test_cuda_against_triton(op, dtype, generator):
    if not {"cuda", "triton"} <= set(ops.operators()[op].backends):
        pytest.skip(f"{op} does not have both")
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert_agree(op, "cuda", "triton", moved(cases(generator, dtype)[op], "cuda"))


@pytest.mark.parametrize("op", OPERATORS)
def test_the_comparison_on_the_cpu(op, generator, monkeypatch):
    if "cpu" not in ops.operators()[op].backends:
        pytest.skip(f"{op} has no second backend on the CPU")
    arguments = cases(generator, torch.float32)[op]
    assert_agree(op, "cpu", "reference", arguments)
    backend = ops.operators()[op].backends["cpu"]
    right = backend.run

    def wrong(*given):
        result = right(*given)
        changed = result[0] if isinstance(result, tuple | list) else result
        changed[(0,) * changed.ndim] += 1
        return result

    monkeypatch.setattr(backend, "run", wrong)
    with pytest.raises(AssertionError):
        assert_agree(op, "cpu", "reference", arguments)
