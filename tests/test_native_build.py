import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recipe import load_recipe

import mga_kernels
from mga_kernels import _native

ROOT = Path(__file__).resolve().parent.parent
CPU_OPERATORS = [
    "select_patches",
    "gather_patches",
    "paste_patches_",
    "mask_head",
    "dynamic_filter",
    "filter_and_select",
    "high_pass",
    "image_to_input",
    "output_to_image",
    "pack_pair_weight",
    "pair_chain_",
    "pair_gather_",
    "pair_grid_scale_",
    "pair_grid_statistics",
    "pair_interpolate_",
    "pair_pool",
    "convolve_maps_",
    "map_gather_",
    "map_grid_scale_",
    "map_grid_statistics",
    "map_interpolate_",
    "pack_map_weight",
]
NATIVE_OPERATORS = CPU_OPERATORS[:3]


def test_library_is_built_and_holds_every_cpu_kernel():
    assert _native.LIBRARY_ERROR is None
    for op in CPU_OPERATORS:
        assert _native.has_kernel(op, "cpu")


def test_cuda_kernels_are_there_exactly_if_a_toolkit_was():
    toolkit = _native.host().build_facts()["cuda"]
    for op in NATIVE_OPERATORS:
        assert _native.has_kernel(op, "cuda") == (toolkit is not None)


def test_build_facts():
    facts = _native.host().build_facts()
    assert facts["version"] == mga_kernels.__version__
    assert re.match(r"(g\+\+|clang) \d+", facts["compiler"])
    assert facts["torch_target"] == "2.11"
    assert "-Wall" in facts["flags"]
    assert bool(facts["cuda"]) == bool(facts["cuda_archs"])


def test_library_needs_no_python_and_no_cuda_library():
    """What makes one file work with every Python, with CPU and with CUDA builds of torch."""
    if sys.platform != "linux":
        pytest.skip("reads an ELF file")
    try:
        dynamic = subprocess.run(["readelf", "-d", _native.LIBRARY], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("readelf is not installed")
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert "libtorch.so" in needed
    assert not [name for name in needed if re.match(r"libpython|libtorch_python|libcu|libc10", name)]


def test_operators_are_torch_operators_with_the_documented_schema():
    assert [str(getattr(torch.ops.mga, op).default._schema) for op in CPU_OPERATORS] == [
        "mga::select_patches(Tensor mask, int k, str order, int seed) -> Tensor",
        "mga::gather_patches(Tensor feature, Tensor indices, int patch_size, int halo) -> Tensor",
        "mga::paste_patches_(Tensor(a!) image, Tensor patches, Tensor indices) -> ()",
        "mga::mask_head(Tensor feature, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, int patch_size, "
        "str order) -> Tensor",
        "mga::dynamic_filter(Tensor probability, Tensor source, Tensor weight, Tensor bias) -> Tensor",
        "mga::filter_and_select(Tensor probability, Tensor source, Tensor weight, Tensor bias, int k, str order, "
        "int seed) -> (Tensor, Tensor)",
        "mga::high_pass(Tensor picture, int side) -> Tensor",
        "mga::image_to_input(Tensor image, int height, int width, float value_range, ScalarType dtype) -> Tensor",
        "mga::output_to_image(Tensor output, int height, int width, float gain) -> Tensor",
        "mga::pack_pair_weight(Tensor weight, int shuffle, bool phased) -> Tensor",
        "mga::pair_chain_(Tensor(a!)[] tensors, int[] slots, Tensor[] lanes, Tensor[] rows, Tensor[] weights, "
        "Tensor[] epilogues, int[] stages, Tensor(b!)[] statistics, int[] frame, float gain, Tensor? added) -> ()",
        "mga::pair_gather_(Tensor(a!) out, Tensor x, int pairs, int height, int width, Tensor indices, int patch_size, "
        "int halo, int across) -> ()",
        "mga::pair_grid_scale_(Tensor(a!) out, Tensor x, Tensor? skip, Tensor factors, Tensor offsets, int height, "
        "int width, int across, float slope) -> ()",
        "mga::pair_grid_statistics(Tensor x, int pairs, int count, int height, int width, int across) -> Tensor",
        "mga::pair_interpolate_(Tensor(a!) out, int out_pair, Tensor x, int height, int width) -> ()",
        "mga::pair_pool(Tensor x, int x_pair, int pairs, int height, int width, int size, int step) -> Tensor",
        "mga::convolve_maps_(Tensor(a!)[] tensors, int[] maps, Tensor[] lanes, Tensor[] rows, Tensor[] weights, "
        "Tensor[] epilogues, int[] layers, Tensor[] tiles, Tensor(b!)[] statistics, int[] frame, float gain, "
        "Tensor? added) -> ()",
        "mga::map_gather_(Tensor(a!) out, Tensor x, int groups, int height, int width, Tensor indices, int patch_size, "
        "int halo, int across, int repeated) -> ()",
        "mga::map_grid_scale_(Tensor(a!) out, Tensor x, Tensor? skip, Tensor factors, Tensor offsets, int height, "
        "int width, int across, float slope) -> ()",
        "mga::map_grid_statistics(Tensor x, int groups, int count, int height, int width, int across) -> Tensor",
        "mga::map_interpolate_(Tensor(a!) out, int group, Tensor x, int height, int width) -> ()",
        "mga::pack_map_weight(Tensor weight, int tile) -> Tensor",
    ]


@pytest.fixture
def recipe():
    return load_recipe()


def kernels(folder, kind, **first_lines):
    (folder / kind / "isa").mkdir(parents=True, exist_ok=True)
    for name, line in first_lines.items():
        (folder / kind / "isa" / f"{name}.cpp").write_text(f"// Instruction set{line}\n")


def test_an_instruction_set_is_one_file(recipe, tmp_path):
    kernels(tmp_path, "ops", baseline=": none.", avx2=" of x86_64: avx2 fma. Compiled for it as a whole.")
    kernels(tmp_path, "convolution", portable=": none.", neon=" of aarch64: neon.")
    kernels(tmp_path, "maps", portable=": none.")
    before = recipe.isa_header(recipe.isa_files(tmp_path, "x86_64")).splitlines()
    assert before[-4:] == [
        '#define MGA_INSTRUCTION_SETS(use) use(baseline, true) use(avx2, MGA_HAS("avx2") && MGA_HAS("fma"))',
        "#define MGA_OPERATOR_KERNELS(use, ...) use(baseline, 0, __VA_ARGS__) use(avx2, 1, __VA_ARGS__)",
        "#define MGA_CONVOLUTION_KERNELS(use, ...) use(portable, 0, __VA_ARGS__)",
        "#define MGA_MAP_KERNELS(use, ...) use(portable, 0, __VA_ARGS__)",
    ]
    kernels(tmp_path, "convolution", avx2=" of x86_64: fma avx2.", avx9=" of x86_64: avx2 avx9 fma.")
    files = recipe.isa_files(tmp_path, "x86_64")
    after = recipe.isa_header(files).splitlines()
    assert 'use(avx9, MGA_HAS("avx2") && MGA_HAS("avx9") && MGA_HAS("fma"))' in after[-4]
    assert after[-3:-1] == [
        before[-3],
        f"{before[-2]} use(avx2, 1, __VA_ARGS__) use(avx9, 2, __VA_ARGS__)",
    ]
    assert [file.flags for file in files if file.path.stem == "avx2"] == ["", "-mavx2 -mfma"]
    assert "use(neon, 1, " in recipe.isa_header(recipe.isa_files(tmp_path, "aarch64"))


@pytest.mark.parametrize(
    ("says", "machine"),
    [("aarch64-linux-gnu", "aarch64"), ("arm64-apple-darwin23.1.0", "aarch64"), ("x86_64-pc-linux-gnu", "x86_64")],
)
def test_the_compiler_says_for_which_processor(recipe, tmp_path, monkeypatch, says, machine):
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\ntest "$1 $2" = "-pipe -dumpmachine" && echo {says}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", f"{compiler} -pipe")
    assert recipe.target_machine() == machine
    assert {file.path.stem for file in recipe.isa_files(machine=machine)} & {"avx2", "neon"} == {
        "avx2" if machine == "x86_64" else "neon"
    }
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert recipe.target_machine() in ("x86_64", "aarch64", platform.machine())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"avx9": "s: avx9"}, "must begin with a line like"),
        (
            {"avx2": " of x86_64: avx2.", "sse9": " of x86_64: sse9 sse8."},
            "one must have all of the other; apart: avx2",
        ),
        ({"avx2": " of x86_64: avx2.", "other": " of x86_64: avx2."}, "two names of one instruction set"),
    ],
)
def test_an_unclear_instruction_set_stops_the_build(recipe, tmp_path, lines, message):
    kernels(tmp_path, "convolution", **lines)
    with pytest.raises(SystemExit, match=message):
        recipe.isa_header(recipe.isa_files(tmp_path, "x86_64"))


def build(tmp_path, **environment):
    """Ask setup.py for a build into ``tmp_path`` under other settings."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "-b", tmp_path / "lib", "-t", tmp_path / "temp"]
    environment = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MGA_CUDA": "yes"}, "MGA_CUDA='yes' is none of auto, 0 and 1"),
        ({"MGA_WERROR": "yes"}, "MGA_WERROR='yes' is neither 0 nor 1"),
        ({"MGA_CUDA_ARCHS": "80;hopper", "MGA_CUDA": "1"}, "MGA_CUDA_ARCHS='80;hopper' is not a list like"),
    ],
)
def test_wrong_settings_stop_the_build(tmp_path, environment, message):
    if "MGA_CUDA_ARCHS" in environment and _native.host().build_facts()["cuda"] is None:
        pytest.skip("no CUDA toolkit")
    result = build(tmp_path, **environment)
    assert result.returncode != 0
    assert message in result.stderr.strip().splitlines()[-1]


# Notes what it is asked for, and makes an empty file of every output.
COMPILER = """#!/bin/sh
echo "$@" >> "$0.log"
while [ $# -gt 1 ]; do case $1 in -o | -MF) : > "$2";; esac; shift; done
"""


def test_build_without_cuda_says_so_and_compiles_none(tmp_path):
    """That such a build works is seen where `make sanitize` makes one and runs the tests of all CPU kernels on it."""
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    result = build(tmp_path, MGA_CUDA="0", CXX=str(compiler))
    assert result.returncode == 0, result.stderr
    assert "mga_kernels: MGA_CUDA=0: building the CPU operators only" in result.stdout.splitlines()
    asked = (tmp_path / "compiler.log").read_text().splitlines()
    compiled = {Path(source).relative_to(ROOT / "csrc") for line in asked for source in re.findall(r"-c (\S+)", line)}
    sources = {path.relative_to(ROOT / "csrc") for path in (ROOT / "csrc").rglob("*.cpp")}
    elsewhere = {path for path in sources if path.parent.name == "isa"}  # those of other machines are left out
    assert sources - elsewhere <= compiled <= sources
    assert not [line for line in asked if re.search(r"MGA_WITH_CUDA|USE_CUDA|libcudart|-lcudart|\.cu\b", line)]
    assert (tmp_path / "lib/mga_kernels/_C.so").exists()


@pytest.mark.parametrize("wish", [None, "1"])
def test_a_warning_of_a_newer_compiler_ends_no_build_unless_that_is_asked_for(tmp_path, wish):
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    assert build(tmp_path, MGA_CUDA="0", CXX=str(compiler), MGA_WERROR=wish).returncode == 0
    compiled = [line for line in (tmp_path / "compiler.log").read_text().splitlines() if " -c " in line]
    assert compiled
    assert {"-Werror" in line.split() for line in compiled} == {wish == "1"}


@pytest.mark.parametrize("folder", ["lib64", "targets/x86_64-linux/lib"])
def test_the_cuda_runtime_is_found_where_a_toolkit_has_it(recipe, tmp_path, monkeypatch, folder):
    monkeypatch.setattr(recipe, "target_machine", lambda: "x86_64")
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "libcudart_static.a").touch()
    assert recipe.static_runtime(tmp_path) == tmp_path / folder
