import subprocess
import sys

import pytest
import torch

from mga_kernels import _native, info, ops
from mga_kernels.errors import BackendError, InputError
from mga_kernels.ops import gather_patches, select_patches

OPERATORS = ["mask_head", "dynamic_filter", "select_patches", "filter_and_select", "gather_patches"]
OPERATORS += ["paste_patches_", "image_to_input", "output_to_image", "convolve_pixels_", "high_pass"]
CONVOLUTION = ["pack_pair_weight", "pair_chain_", "pair_gather_", "pair_grid_scale_", "pair_grid_statistics"]
CONVOLUTION += ["pair_interpolate_", "pair_pool", "convolve_maps_", "pack_map_weight"]
CONVOLUTION += ["map_gather_", "map_grid_scale_", "map_grid_statistics"]


@pytest.fixture
def feature():
    return torch.arange(64.0).reshape(1, 1, 8, 8)


@pytest.fixture
def indices():
    return torch.tensor([[1, 2]], dtype=torch.int32)


def test_every_operator_is_registered_and_has_a_reference():
    assert sorted(ops.operators()) == sorted([*OPERATORS, *CONVOLUTION])
    for operator in ops.operators().values():
        assert operator.backends["reference"].unavailable() is None


def test_the_first_in_preference_runs(free_choice, feature, indices):
    gather_patches(feature, indices, 4, 1)
    assert ops.last_backend("gather_patches") == "cpu"


def test_a_forced_backend_runs(monkeypatch, feature, indices):
    for name in ("reference", "cpu"):
        monkeypatch.setenv("MGA_BACKEND", name)
        gather_patches(feature, indices, 4, 1)
        assert ops.last_backend("gather_patches") == name


def test_a_forced_backend_that_cannot_run_says_why(monkeypatch, feature, indices):
    monkeypatch.setenv("MGA_BACKEND", "cuda")
    with pytest.raises(BackendError) as caught:
        gather_patches(feature, indices, 4, 1)
    assert str(caught.value) == "MGA_BACKEND=cuda: gather_patches cannot run this call there: a tensor is on cpu"
    monkeypatch.setenv("MGA_BACKEND", "cpu")
    with pytest.raises(BackendError, match="gradients are being recorded and this kernel has no backward"):
        gather_patches(feature.requires_grad_(), indices, 4, 1)
    with pytest.raises(BackendError, match=r"torch\.complex64 is not among its dtypes"):
        gather_patches(feature.detach().to(torch.complex64), indices, 4, 1)
    monkeypatch.setenv("MGA_BACKEND", "fpga")
    with pytest.raises(BackendError, match="there is no such backend; choose one of cuda, triton, cpu, reference"):
        gather_patches(feature, indices, 4, 1)
    monkeypatch.setenv("MGA_BACKEND", "triton")
    with pytest.raises(BackendError, match="MGA_BACKEND=triton: select_patches has only cuda, cpu, reference"):
        ops.operators()["select_patches"].choose(feature)


def test_a_refused_call_is_not_recorded(free_choice, feature, indices, monkeypatch):
    gather_patches(feature, indices, 4, 1)
    monkeypatch.setenv("MGA_BACKEND", "reference")
    with pytest.raises(InputError):
        gather_patches(feature, indices + 4, 4, 1)
    assert ops.last_backend("gather_patches") == "cpu"


def test_a_dtype_without_kernel_falls_to_the_reference(free_choice, feature, indices):
    patches = gather_patches(feature.to(torch.complex64), indices, 4, 0)
    assert ops.last_backend("gather_patches") == "reference"
    assert torch.equal(patches.real, gather_patches(feature, indices, 4, 0))


def test_last_backend_of_an_unknown_operator():
    with pytest.raises(InputError, match="there is no operator 'sharpen'; choose one of"):
        ops.last_backend("sharpen")


def test_without_the_library_the_reference_runs():
    """In a new process, with the library's file out of sight."""
    code = (
        "import importlib.util, pathlib, torch\n"
        "exists = pathlib.Path.exists\n"
        "pathlib.Path.exists = lambda self: False if self.name == '_C.so' else exists(self)\n"
        "from mga_kernels import ops, info\n"
        "mask = torch.tensor([[[0.1, 0.9], [0.5, 0.2]]])\n"
        "assert ops.select_patches(mask, 2).tolist() == [[1, 2]]\n"
        "print(ops.last_backend('select_patches'), info.collect()['operators']['select_patches']['cpu'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("reference the native library is not built: run `pip install")


def test_importing_compiles_nothing():
    """No process is started by importing all of the package, and Triton waits until it is needed."""
    code = (
        "import sys, torch\n"
        "forbidden = ['subprocess.Popen', 'os.system', 'os.posix_spawn', 'os.fork']\n"
        "def forbid(event, arguments):\n"
        "    if event in forbidden:\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(forbid)\n"
        "import mga_kernels.info, mga_kernels.engine\n"
        "forbidden.clear()\n"
        "mga_kernels.info.collect()\n"
        "print('triton' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stdout + result.stderr


def test_info_lists_every_backend_with_its_reason():
    facts = info.collect()
    assert sorted(facts["operators"]) == sorted([*OPERATORS, *CONVOLUTION])
    for name, backends in facts["operators"].items():
        assert list(backends) == list(ops.operators()[name].backends)
        assert set(backends) <= set(ops.BACKENDS)
        assert backends["reference"] is None
    assert facts["operators"]["gather_patches"]["cpu"] is None
    reason = facts["operators"]["gather_patches"]["cuda"]
    if torch.cuda.is_available() and _native.has_kernel("gather_patches", "cuda"):
        assert reason is None
    else:
        assert "CUDA" in reason or "GPU" in reason or "cuda" in reason


def test_info_prints_it(forks):
    result = forks.result("import runpy; runpy.run_module('mga_kernels.info', run_name='__main__')")
    assert result.returncode == 0, result.stderr
    for word in (
        *OPERATORS,
        *CONVOLUTION,
        "torch",
        torch.__version__,
        "reference",
        "avx2" if "avx2" in result.stdout else "neon",
    ):
        assert word in result.stdout
    assert not result.stderr


PATH = ["select_patches", "gather_patches", "paste_patches_"]


def path(mask, feature):
    """The operators that ``PATH`` names, one after the other."""
    indices = select_patches(mask, 100)
    image = torch.zeros_like(feature)
    return ops.paste_patches_(image, gather_patches(feature, indices, 4, 0), indices)


def check_path(result, mask, feature, backend):
    """``result`` is that of these inputs, and of every operator the ``backend`` ran."""
    assert [ops.last_backend(op) for op in PATH] == [backend] * len(PATH)
    assert torch.equal(result, path(mask, feature))
    assert int((result != 0).any(dim=1).sum()) == len(mask) * 100 * 16


def test_the_path_of_the_capture_runs(free_choice, generator):
    """The next test, without a graph: what it expects is true where there is no GPU to show it."""
    mask, feature = torch.randn(2, 30, 40, generator=generator), torch.randn(2, 8, 120, 160, generator=generator)
    check_path(path(mask, feature), mask, feature, "cpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_uses_the_current_stream_and_can_be_captured(free_choice):
    mask = torch.zeros(2, 30, 40, device="cuda")
    feature = torch.randn(2, 8, 120, 160, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        path(mask, feature)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = path(mask, feature)
    mask.copy_(torch.randn_like(mask))
    feature.normal_()
    graph.replay()
    torch.cuda.synchronize()
    check_path(captured, mask, feature, "cuda")
