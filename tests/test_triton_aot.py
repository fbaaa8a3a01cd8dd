"""What the compiler makes of the Triton kernels, for chips that are not here; all launches: bench/triton_report.py."""

import ast
import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from mga_kernels import ops

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ["sm_80", "sm_90", "sm_100", "sm_120", "gfx942"]
# Of every operator the launch of the paper's configuration, RFDN x4 in float16, and what spills first.
SOME = (
    r"^mask_head C=50 float16 p=4 softmax|^mask_head C=64 float32 p=4 softmax\S+$|^dynamic_filter S=1 float32|"
    r"^gather_patches C=50 float16 p=4 channels-last|^paste_patches_ q=16 float16 NCHW|"
    r"^(image_to_input|output_to_image) float16 packed|"
    r"^high_pass side=48|^convolve_pixels_ 3x3 C=64, skip|^convolve_pixels_ span in regions, 3x3 C=48 to 48, skip"
)
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture
def run(forks):
    """run(word..) is what Python makes of the words."""
    environment = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "MGA_BACKEND")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "bench"), environment.get("PYTHONPATH", "")])
    options = {"capture_output": True, "text": True, "env": environment}
    return lambda *words: subprocess.run([forks.python, *words], **options)


def with_triton():
    return {name for name, operator in ops.operators().items() if "triton" in operator.backends}


@pytest.mark.slow
def test_kernels_compile_for_every_target_without_spills(run, tmp_path):
    result = run(ROOT / "bench/triton_report.py", "--only", SOME, "--out", tmp_path, "--jobs", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads((tmp_path / "triton_kernels.json").read_text())["launches"]
    assert {row["op"] for row in rows} == with_triton()
    for row in rows:
        for target in TARGETS:
            registers, stack, shared, warps = row[target]
            assert 0 < registers <= 512
            assert stack == 0
            assert shared <= 227 * 1024
            assert warps in (2, 4, 8, 16)


def test_spills_and_too_much_shared_memory_are_seen(run):
    """The mask head held to 40 registers has to spill, and the report has to see it."""
    code = (
        "import triton_launches\nimport triton_report as report\n"
        "case = next(c for c in triton_launches.mask_head_launches() if c[0].startswith('C=12 float16 p=4'))\n"
        "with report.compiled('sm_90', maxnreg=40) as kernels: report.launch(case[1], *case[2])\n"
        "spilled = report.figures(kernels[0], 'sm_90')\n"
        "print(report.excess(spilled, 'sm_90'))\n"
        "print(report.excess((32, 0, 100_000, 4), 'sm_90'), report.excess((32, 0, 100_000, 4), 'gfx942'))\n"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert int(first.removesuffix(" bytes of stack")) > 0
    assert second == "None 100000 bytes of shared memory, of 65536"


def test_what_machine_code_is_made_of_is_counted(run):
    code = (
        "import triton_report as report\n"
        "code = '''\n"
        '\t.section\t.text.kernel,"ax",@progbits\n'
        "        /*0000*/                   LDC R1, c[0x0][0x28] ;\n"
        "        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;\n"
        "        /*0020*/                   LDGSTS.E.BYPASS.LTC128B.128 [R9], desc[UR4][R2.64] ;\n"
        "        /*0030*/             @UP1  LDG.E.LTC128B R4, desc[UR4][R2.64] ;\n"
        "        /*00a0*/                   HGMMA.64x64x16.F32 R24, gdesc[UR8], !UPT ;\n"
        "        /*00b0*/               @P2 STL.64 [R1], R4 ;\n"
        "        /*00c0*/                   LDL R4, [R1] ;\n'''\n"
        "found = report.instructions(code)\n"
        "print(found)\n"
        "print(report.weakness(found), report.weakness(found | {'local': 0}))\n"
        "print(report.weakness(found | {'matrix': 0}), report.weakness(found | {'wide loads': 0}))\n"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "{'matrix': 1, 'wide loads': 2, 'narrow loads': 1, 'local': 2}",
        "2 uses of local memory None",
        "no product of matrices no wide loads",
    ]


def test_a_convolution_multiplies_in_matrix_units_and_loads_16_bytes(run):
    """One kernel for one chip, which takes seconds, and of which Triton keeps what it made; all are in the table."""
    code = (
        "import os, sys, triton, triton_report as report\n"
        "path = triton.knobs.nvidia.nvdisasm.path\n"
        "sys.exit(77) if not os.access(path, os.X_OK) else None\n"
        "case = next(c for c in report.launches() if c[0] == '3x3 C=48, of the mask float16')\n"
        "with report.compiled('sm_90') as kernels: report.launch(case[1], *case[2])\n"
        "print(report.instructions(report.disassembly(kernels[0])))\n"
    )
    result = run("-c", code)
    if result.returncode == 77:
        pytest.skip("this Triton brings no nvdisasm")
    assert result.returncode == 0, result.stderr
    found = ast.literal_eval(result.stdout)
    assert found["matrix"] >= 9, "one a tap, at least"
    assert found["wide loads"] >= 2, "of pixels and of weights"
    assert found["local"] == 0


def test_the_committed_table_says_what_every_convolution_is_made_of():
    rows = json.loads((ROOT / "bench/results/triton_kernels.json").read_text())["launches"]
    convolutions = [row for row in rows if row["op"] == "convolve_pixels_"]
    others = {f"{name} in regions" for name in ("span-x4-regions", "span", "compact", "msrresnet")}
    others |= {f"{name} -M" for name in ("rfdn", "fsrcnn", "srresnet")} | {"by classes"}
    assert others | {"compact", "span", "rrdbnet"} < {row["case"].split(",")[0] for row in convolutions}
    for row in convolutions:
        assert list(row["code"]) == TARGETS[:-1], row["case"]
        for found in row["code"].values():
            assert found["matrix"] > 0
            assert found["wide loads"] > 0
            assert found["local"] == 0


def test_the_committed_table_holds_every_launch_and_no_spill(run):
    report = json.loads((ROOT / "bench/results/triton_kernels.json").read_text())
    result = run(
        "-c", "import triton_report as r; print(*(f'{op} {case}' for case, op, *_ in r.launches()), sep='\\n')"
    )
    assert result.returncode == 0, result.stderr
    assert [f"{row['op']} {row['case']}" for row in report["launches"]] == result.stdout.splitlines()
    assert {row["op"] for row in report["launches"]} == with_triton()
    for row in report["launches"]:
        assert [row[target][1] for target in TARGETS] == [0] * len(TARGETS)


def test_images_of_all_sizes_take_the_same_kernels(run):
    """Whatever K is, and where the Refine-Net runs over all; rows of planes and pictures are aligned alike in both."""
    code = (
        "import gpu_floors, triton_report as report\n"
        "from triton_launches import calls_of, on_the_cpu\n"
        "from mga_kernels.networks import MaskGuidedNetwork, ModelConfig\n"
        "for name in ('fsrcnn', 'rfdn'):\n"
        "    planner = gpu_floors.own(MaskGuidedNetwork(ModelConfig(name, 4)))\n"
        "    for dense in (False, True):\n"
        "        found = []\n"
        "        for size, k in (((271, 487), 1000), ((333, 501), 77)):\n"
        "            with report.signatures('sm_90') as kernels:\n"
        "                for call in calls_of(planner, dense, 0 if dense else k, *size):\n"
        "                    report.launch('convolve_pixels_', *map(on_the_cpu, call))\n"
        "            found.append(kernels)\n"
        "        print(len(found[0]) > 4, found[0] == found[1])\n"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["True True"] * 4
