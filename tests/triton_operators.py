"""The Triton kernels as torch operators: opcheck, torch.compile, autograd, refusals. Run as triton_kernels.py is."""

import pytest
import torch
from pixel_layers import arguments as pixel_layer
from test_mask_head import arguments as mask_head_arguments
from triton_kernels import DEVICE, INTERPRETING, ORDERS, random
from triton_kernels import poisoned_outputs as poisoned_outputs

from mga_kernels import ops
from mga_kernels.errors import BackendError
from mga_kernels.ops import image_to_input, mask_head, output_to_image, paste_patches_


def calls():
    """A small call of every operator, as its name and arguments."""
    g = torch.Generator().manual_seed(7)
    feature = torch.randn(2, 3, 8, 12, generator=g).contiguous(memory_format=torch.channels_last)
    indices = torch.tensor([[0, 5], [2, 3]], dtype=torch.int32)
    weight, bias = torch.randn(3, 3, 3, 3, generator=g), torch.randn(3, generator=g)
    probability = torch.rand(2, 4, 5, generator=g)
    image = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8, generator=g)
    made = {
        "mask_head": (feature, weight, bias, weight[:2], bias[:2], 4, ORDERS[0]),
        "dynamic_filter": (probability, probability[:, None], torch.randn(25, 1, 1, 1, generator=g), torch.randn(25)),
        "gather_patches": (feature, indices, 4, 1),
        "paste_patches_": (feature, torch.randn(4, 3, 4, 4, generator=g), indices),
        "image_to_input": (image, 8, 8, 1.0, torch.float16),
        "output_to_image": (feature, 7, 12, 1.0),
        "high_pass": (image, 4),
        "convolve_pixels_": pixel_layer("two added", torch.float32, g),
    }
    to = lambda a: a.to(DEVICE) if isinstance(a, torch.Tensor) else a  # noqa: E731
    return [pytest.param(op, [to(a) for a in arguments], id=op) for op, arguments in made.items()]


def test_every_triton_operator_is_called_below():
    with_triton = {name for name, operator in ops.operators().items() if "triton" in operator.backends}
    assert {call.id for call in calls()} == with_triton


@pytest.mark.parametrize(("op", "arguments"), calls())
def test_opcheck(op, arguments):
    operator = getattr(torch.ops.mga_triton, op).default
    assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}


# Without a GPU one of each kind, of results, in place and with what may be missing: opcheck traces all of them.
COMPILED = {"dynamic_filter", "paste_patches_", "convolve_pixels_"}


@pytest.mark.parametrize("dynamic", [True] if INTERPRETING else [False, True])
@pytest.mark.parametrize(("op", "arguments"), [call for call in calls() if call.id in COMPILED or not INTERPRETING])
def test_compile(op, arguments, dynamic):
    torch.compiler.reset()
    arguments = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]

    def twice(first, *others):
        return getattr(ops, op)(first + 0, *others) * 2

    compiled = torch.compile(twice, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    assert torch.equal(compiled(*arguments), twice(*arguments))
    assert ops.last_backend(op) == "triton"


def test_in_place_is_told_to_autograd(generator):
    image = random((1, 1, 4, 4), torch.float32, generator).to(DEVICE)
    weight = torch.ones(1, device=DEVICE, requires_grad=True)
    product = (image * weight).sum()
    with torch.no_grad():
        paste_patches_(
            image, torch.zeros(1, 1, 4, 4, device=DEVICE), torch.zeros(1, 1, dtype=torch.int32, device=DEVICE)
        )
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def refused_calls():
    head = mask_head_arguments((1, 2, 15, 15), 2, torch.Generator())
    image = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    patches = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    return [
        pytest.param(mask_head, (*head, 5, ORDERS[0]), "float64 is not among its dtypes", id="mask_head"),
        pytest.param(
            mask_head, (*(t.float() for t in head), 15, ORDERS[0]), "patch_size is above 14", id="large cells"
        ),
        pytest.param(image_to_input, (image, 2, 2, 1.0, torch.float64), "dtype is float64", id="image_to_input"),
        pytest.param(output_to_image, (patches, 2, 2), "float64 is not among its dtypes", id="output_to_image"),
    ]


@pytest.mark.parametrize(("call", "arguments", "reason"), refused_calls())
def test_refusals(call, arguments, reason):
    with pytest.raises(BackendError, match=reason):
        call(*(a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in arguments))
