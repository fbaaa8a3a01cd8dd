"""The CUDA kernels themselves, run on the CPU by an emulation: no GPU, but NVIDIA's headers are needed.

What it cannot show (launches, streams, races between blocks, speed) is left to the tests marked ``cuda``.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from mga_kernels import ops

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ORDERS = ["largest", "smallest", "random"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    toolkit = Path(os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda")
    compiler = shutil.which("g++")
    if not (toolkit / "include/cuda_fp16.h").exists() or compiler is None:
        pytest.skip("needs the headers of a CUDA toolkit and g++")
    folder = tmp_path_factory.mktemp("emulation")
    include = [f"-I{CSRC}", f"-I{HERE / 'cuda_emulation'}", "-isystem", toolkit / "include"]
    flags = [compiler, "-std=c++17", "-O1", "-fPIC", *include]
    objects = []
    for source in (*CSRC.glob("*.cu"), HERE / "cuda_emulation/bindings.cpp"):
        objects.append(folder / f"{source.name}.o")
        subprocess.run([*flags, "-DMGA_CPU_EMU", "-x", "c++", "-c", source, "-o", objects[-1]], check=True)
    subprocess.run([*flags, "-shared", *objects, "-o", folder / "emulated.so"], check=True)
    loaded = ctypes.CDLL(str(folder / "emulated.so"))
    loaded.fault.restype = ctypes.c_char_p
    return loaded


@pytest.fixture(params=["fwd", "rev", "7"])
def thread_order(request):
    """The order in which threads run between two barriers; getenv in C sees it only through the C library."""
    libc = ctypes.CDLL(None)
    libc.setenv(b"EMU_ORDER", request.param.encode(), 1)
    yield
    libc.unsetenv(b"EMU_ORDER")


def launch(library, kernel, *arguments):
    def c(value):
        if isinstance(value, torch.Tensor):
            return ctypes.c_void_p(value.data_ptr())
        return (ctypes.c_int64 * len(value))(*value) if isinstance(value, tuple) else value

    status = getattr(library, kernel)(*map(c, arguments))
    assert status == 0, library.fault().decode()


def reference(op, *arguments):
    return ops.operators()[op].backends["reference"].run(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7), (1, 33, 64)])
def test_select_patches(library, thread_order, dtype, shape, generator):
    distinct = torch.randn(shape, generator=generator)
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0])
    cells = shape[1] * shape[2]
    for mask in (distinct, distinct.round(), special[torch.randint(6, shape, generator=generator)]):
        mask = mask.to(dtype)
        for number, order in enumerate(ORDERS):
            for k in {1, max(1, cells // 3), cells}:
                indices = torch.full((shape[0], k), -7, dtype=torch.int32)
                sizes = [ctypes.c_int64(size) for size in (shape[0], cells, k)]
                launch(library, "select_patches", mask, DTYPES.index(dtype), indices, *sizes, number, 3)
                assert torch.equal(indices, reference("select_patches", mask, k, order, 3)), (order, k)


@pytest.mark.parametrize("dtype", [torch.uint8, *DTYPES])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "transposed"])
@pytest.mark.parametrize("halo", [0, 1, 3])
def test_gather_patches(library, dtype, layout, halo, generator):
    feature = (100 * torch.rand(2, 5, 12, 18, generator=generator)).to(dtype)
    if layout == "channels-last":
        feature = feature.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        feature = feature.transpose(2, 3).contiguous().transpose(2, 3)
    indices = ops.select_patches(torch.zeros(2, 6, 9), 20, "random", halo)
    wanted = reference("gather_patches", feature, indices, 2, halo)
    patches = torch.empty_like(wanted).fill_(77)
    shape = (2, 5, 12, 18, 20, 2, halo)
    last = int(layout == "channels-last")
    launch(library, "gather_patches", feature, indices, patches, shape, feature.stride(), last, dtype.itemsize)
    assert torch.equal(patches, wanted)
    outside = torch.tensor([[-1] * 20, [54] * 20], dtype=torch.int32)
    launch(library, "gather_patches", feature, outside, patches, shape, feature.stride(), last, dtype.itemsize)
    assert (patches == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, *DTYPES])
@pytest.mark.parametrize("image_layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("patch_layout", [torch.contiguous_format, torch.channels_last])
def test_paste_patches(library, dtype, image_layout, patch_layout, generator):
    image = (100 * torch.rand(2, 3, 12, 20, generator=generator)).to(dtype).contiguous(memory_format=image_layout)
    patches = (100 * torch.rand(14, 3, 4, 4, generator=generator)).to(dtype).contiguous(memory_format=patch_layout)
    indices = ops.select_patches(torch.zeros(2, 3, 5), 7, "random", 1)
    wanted = reference("paste_patches_", image.clone(), patches, indices)
    before = image.clone()
    strides = image.stride(), patches.stride()
    shape = (2, 3, 3, 5, 7, 4)
    outside = torch.tensor([[-1] * 7, [15] * 7], dtype=torch.int32)
    launch(library, "paste_patches", image, patches, outside, shape, *strides, dtype.itemsize)
    assert torch.equal(image, before)
    launch(library, "paste_patches", image, patches, indices, shape, *strides, dtype.itemsize)
    assert torch.equal(image, wanted)
    assert not torch.equal(image, before)
