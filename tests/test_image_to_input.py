import numpy as np
import pytest
import torch
from operators import run
from torch._subclasses.fake_tensor import FakeTensorMode

from mga_kernels import _native, ops
from mga_kernels.errors import InputError
from mga_kernels.ops import image_to_input

OP = torch.ops.mga.image_to_input.default
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def reflected(length, padded):
    """Positions of an axis mirrored again and again, by walking back and forth."""
    positions, at, step = [], 0, 1
    for _ in range(padded):
        positions.append(at)
        if length > 1 and not 0 <= at + step < length:
            step = -step
        at += step if length > 1 else 0
    return positions


def expected(image, height, width, value_range, dtype):
    """One rounding in the arithmetic's type and one in the result's, in numpy."""
    wide = np.float64 if dtype == torch.float64 else np.float32
    picked = image.numpy()[:, reflected(image.shape[1], height)][:, :, reflected(image.shape[2], width)]
    return torch.from_numpy(picked.astype(wide) * wide(value_range / 255)).permute(0, 3, 1, 2).to(dtype)


def photographs(shape, generator):
    """One picture under different strides."""
    image = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
    with_alpha = torch.cat([image, torch.full((*shape, 1), 9, dtype=torch.uint8)], dim=3)
    return {
        "contiguous": image,
        "of four channels": with_alpha[..., :3],
        "planar": image.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "sideways": image.transpose(1, 2).contiguous().transpose(1, 2),
        "every other row": torch.repeat_interleave(image, 2, dim=1)[:, ::2],
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value_range", [1.0, 255.0])
@pytest.mark.parametrize(
    ("shape", "padded"),
    [((1, 7, 11), (7, 11)), ((3, 7, 11), (8, 12)), ((2, 4, 5), (30, 41)), ((1, 1, 1), (4, 8)), ((1, 1, 9), (4, 9))],
)
def test_equals_the_definition(backend, dtype, value_range, shape, padded, generator):
    for name, image in photographs(shape, generator).items():
        got = run("image_to_input", backend, image, *padded, value_range, dtype)
        assert torch.equal(got.cpu(), expected(image, *padded, value_range, dtype)), name
        assert got.is_contiguous(memory_format=torch.channels_last), name


def test_every_byte_is_the_nearest_number(backend):
    image = torch.arange(256, dtype=torch.uint8).repeat_interleave(3).reshape(1, 16, 16, 3)
    got = run("image_to_input", backend, image, 16, 16, 1.0, torch.float32)
    assert torch.equal(got.cpu(), image.permute(0, 3, 1, 2).float() * (1 / 255))


def test_pads_like_torch(backend, generator):
    image = photographs((2, 7, 11), generator)["contiguous"]
    got = run("image_to_input", backend, image, 12, 16, 255.0, torch.float32)
    plain = torch.nn.functional.pad(image.permute(0, 3, 1, 2).float(), (0, 5, 0, 5), mode="reflect")
    assert torch.equal(got.cpu(), plain)


def test_enough_work_for_several_threads(backend, generator):
    image = torch.randint(0, 256, (2, 1200, 1300, 3), dtype=torch.uint8, generator=generator)
    got = run("image_to_input", backend, image, 1200, 1301, 255.0, torch.float32)
    assert torch.equal(got.cpu(), expected(image, 1200, 1301, 255.0, torch.float32))


def test_no_images(backend):
    got = run("image_to_input", backend, torch.empty(0, 4, 5, 3, dtype=torch.uint8), 4, 8, 1.0, torch.float32)
    assert got.shape == (0, 3, 4, 8)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic, generator):
    image = photographs((2, 7, 11), generator)["contiguous"]
    wanted = run("image_to_input", backend, image, 8, 12, 1.0, torch.float32)
    compiled = torch.compile(
        lambda i: 2 * image_to_input(i, 8, 12), fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    assert torch.equal(compiled(image.to(backend.device)), 2 * wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_opcheck(backend, dtype, generator):
    if backend.name == "reference":
        pytest.skip("the reference is no torch operator")
    image = photographs((2, 7, 11), generator)["contiguous"].to(backend.device)
    run("image_to_input", backend, image, 8, 12, 1.0, dtype)
    assert set(torch.library.opcheck(OP, (image, 8, 12, 1.0, dtype)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors(free_choice, device):
    if not _native.has_kernel("image_to_input", device):
        pytest.skip(f"the library was built without {device} kernels")
    with FakeTensorMode():
        image = torch.empty(2, 7, 11, 3, dtype=torch.uint8, device=device)
        got = image_to_input(image, 8, 12, 1.0, torch.bfloat16)
    assert ops.last_backend("image_to_input") == device
    assert (got.shape, got.dtype, got.device.type) == ((2, 3, 8, 12), torch.bfloat16, device)
    assert got.is_contiguous(memory_format=torch.channels_last)


IMAGE = torch.zeros(1, 4, 6, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE[0], 4, 6), r"image must be a uint8 tensor \(B, H, W, 3\), got \(4, 6, 3\) torch.uint8"),
        ((IMAGE.float(), 4, 6), "image must be a uint8 tensor"),
        ((IMAGE[..., :2], 4, 6), "image must be a uint8 tensor"),
        ((IMAGE[:, :0], 4, 6), "the image is empty"),
        ((IMAGE, 3, 6), "height must be a whole number of 4 or more, got 3"),
        ((IMAGE, 4, 5), "width must be a whole number of 6 or more, got 5"),
        ((IMAGE, 4, 6, 1.0, torch.int32), "dtype must be one of torch.float16"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        image_to_input(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        (IMAGE[0], 4, 6, 1.0, torch.float32),
        (IMAGE.float(), 4, 6, 1.0, torch.float32),
        (IMAGE, 3, 6, 1.0, torch.float32),
        (IMAGE, 4, 6, 1.0, torch.int32),
    ],
)
def test_the_torch_operator_checks_by_itself(arguments):
    with pytest.raises(RuntimeError, match="image_to_input: "):
        OP(*arguments)
