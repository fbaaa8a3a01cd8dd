"""What nvcc reports: no kernel spills, on any architecture; and the committed table holds the kernels there are."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"


@pytest.fixture
def cuda_report(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import cuda_report

    return cuda_report


@pytest.fixture
def table():
    return json.loads((ROOT / "bench/results/cuda_kernels.json").read_text())


def test_no_kernel_spills_on_any_architecture(table):
    assert table["archs"] == ["80", "90", "100", "120"]
    for kernels in table["kernels"].values():
        for kernel, by_arch in kernels.items():
            assert list(by_arch) == table["archs"]
            for arch, figures in by_arch.items():
                assert figures["spilled"] == figures["stack"] == 0, (kernel, arch)
                assert 0 < figures["registers"] <= 255


def test_the_table_holds_every_kernel(table):
    declared = {}
    for source in (*CSRC.rglob("*.cu"), *CSRC.rglob("*.cuh")):
        for name in re.findall(r"__global__[^;{]*?(\w+_kernel)\(", source.read_text()):
            declared[name] = source.name
    reported = {kernel.partition("<")[0] for kernels in table["kernels"].values() for kernel in kernels}
    assert reported == set(declared)


def test_the_page_is_made_from_the_table(cuda_report, table):
    assert (ROOT / "bench/results/cuda_kernels.md").read_text() == cuda_report.markdown(table)


def test_a_spill_is_seen(cuda_report):
    log = (
        "ptxas info    : Compiling entry function '_Z6kernelPf' for 'sm_90'\n"
        "    48 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 64 registers, used 1 barriers, 8448 bytes smem\n"
    )
    assert cuda_report.parse(log) == {"kernel": {"registers": 64, "spilled": 20, "stack": 48, "shared": 8448}}


@pytest.mark.parametrize("name", ["gather_patches"])
def test_one_file_compiles_as_reported(cuda_report, table, name):
    """With another compiler the figures may differ; a spill is wrong with any, and stops builds where warnings do."""
    if cuda_report.nvcc() is None:
        pytest.skip("no CUDA toolkit")
    found = cuda_report.compile_report(next(CSRC.rglob(f"{name}.cu")), "90")
    assert found
    assert not [kernel for kernel, figures in found.items() if figures["spilled"]]
    if cuda_report.compiler() == table["compiler"]:
        wanted = {kernel: by_arch["90"] for kernel, by_arch in table["kernels"][f"{name}.cu"].items()}
        assert found == wanted
