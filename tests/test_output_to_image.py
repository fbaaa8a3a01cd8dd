import pytest
import torch
from operators import far_apart, layouts, run
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import image_to_input, output_to_image

OP = torch.ops.mga.output_to_image.default
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def special_values(shape, dtype, generator):
    """Ties of the rounding and their neighbours, what is no number, and numbers inside and outside of [0, 1]."""
    ties = (torch.arange(-3, 259, dtype=torch.float64) + 0.5) / 255
    near = torch.cat([ties, ties * (1 - 2e-7), ties * (1 + 2e-7)])
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-40, 1e30, -1e30, 254.99998 / 255, 1.002])
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.5 + 0.5
    special = torch.cat([odd.double(), near])[: values.numel()]
    values.view(-1)[torch.randperm(values.numel(), generator=generator)[: len(special)]] = special
    return values.to(dtype)


def expected(output, height, width, gain):
    """Number by number, in Python."""
    wide = torch.float64 if output.dtype == torch.float64 else torch.float32
    scaled = (output[..., :height, :width].to(wide) * gain).permute(0, 2, 3, 1)

    def byte(value):
        if value != value:
            return 0
        clamped = torch.tensor(min(max(value, 0.0), 1.0), dtype=wide)
        return round(float(clamped * 255))  # half to even

    return torch.tensor([byte(v) for v in scaled.flatten().tolist()], dtype=torch.uint8).reshape(scaled.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gain", [1.0, 1 / 255])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 3, 18, 21), (18, 21)), ((2, 3, 9, 40), (7, 33)), ((1, 3, 1, 1), (1, 1)), ((3, 3, 5, 3), (1, 2))],
)
def test_equals_the_definition(backend, dtype, gain, shape, size, generator):
    output = special_values(shape, dtype, generator) / gain
    wanted = expected(output, *size, gain)
    for name, view in layouts(output).items():
        got = run("output_to_image", backend, view, *size, gain)
        assert torch.equal(got.cpu(), wanted), name
        assert got.is_contiguous()


def test_images_far_apart_in_memory(backend, generator):
    if backend.device != "cpu":
        pytest.skip("the trick with untouched pages is for the CPU")
    output = special_values((2, 3, 9, 10), torch.float16, generator)
    got = run("output_to_image", backend, far_apart(output), 9, 10, 1.0)
    assert torch.equal(got, expected(output, 9, 10, 1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_every_byte_comes_back(backend, dtype):
    image = torch.arange(256, dtype=torch.uint8).repeat_interleave(3).reshape(1, 16, 16, 3)
    for value_range in (1.0, 255.0):
        there = image_to_input(image, 17, 20, value_range, dtype)
        assert torch.equal(run("output_to_image", backend, there, 16, 16, 1 / value_range).cpu(), image)


def test_enough_work_for_several_threads(backend, generator):
    output = torch.rand(2, 3, 700, 900, generator=generator)
    wanted = (output * 255).round().byte().permute(0, 2, 3, 1)
    for view in (output, output.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(run("output_to_image", backend, view, 700, 900, 1.0).cpu(), wanted)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    output = special_values((2, 3, 9, 10), torch.float32, generator).to(backend.device)
    wanted = run("output_to_image", backend, output, 8, 10, 1.0)
    compiled = torch.compile(
        lambda o: output_to_image(o, 8, 10) ^ 255, fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    assert torch.equal(compiled(output), wanted ^ 255)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_opcheck(backend, dtype, generator):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    output = special_values((2, 3, 9, 10), dtype, generator).to(backend.device)
    run("output_to_image", backend, output, 8, 10, 1.0)
    assert set(torch.library.opcheck(OP, (output, 8, 10, 1.0)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors(free_choice, device):
    if not _native.has_kernel("output_to_image", device):
        pytest.skip(f"the library was built without {device} kernels")
    with FakeTensorMode():
        got = output_to_image(torch.empty(2, 3, 8, 12, device=device, dtype=torch.float16), 7, 11)
    assert ops.last_backend("output_to_image") == device
    assert (got.shape, got.dtype, got.device.type) == ((2, 7, 11, 3), torch.uint8, device)


OUTPUT = torch.zeros(1, 3, 4, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((OUTPUT[0], 4, 6), r"output must be a floating tensor \(B, 3, H, W\), got \(3, 4, 6\) torch.float32"),
        ((OUTPUT[:, :2], 4, 6), "output must be a floating tensor"),
        ((OUTPUT.byte(), 4, 6), "output must be a floating tensor"),
        ((OUTPUT, 0, 6), "height must be a whole number of 1 or more, got 0"),
        ((OUTPUT, 4, 7), r"a 4x7 image does not fit in an output of \(4, 6\)"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        output_to_image(*arguments)


@pytest.mark.parametrize("arguments", [(OUTPUT[0], 4, 6, 1.0), (OUTPUT.byte(), 4, 6, 1.0), (OUTPUT, 5, 6, 1.0)])
def test_the_torch_operator_checks_by_itself(arguments):
    with pytest.raises(RuntimeError, match="output_to_image: "):
        OP(*arguments)
