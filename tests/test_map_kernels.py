"""The kernels of float maps in a program without PyTorch, against the definition in double.

Those of this processor's kind run on it as far as it has their instructions; those of aarch64 run in an emulator, if
there are a compiler and an emulator for it (Debian: g++-aarch64-linux-gnu, qemu-user).
"""

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from programs import CSRC, environment, kept_program
from recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests/map_kernels"
RECIPE = load_recipe()
COMPILER = os.environ.get("CXX", "g++")
LAYERS = 241  # that compare.cpp compares


def of_library(source: Path) -> Path | None:
    """The object that the build in this clone made of a file of the library, if nothing has been changed since."""
    newest = max(path.stat().st_mtime for path in CSRC.rglob("*") if path.is_file())
    made = ROOT.glob(f"build/temp.*/*-release/_C/{source.relative_to(CSRC)}.o")
    return next((path for path in made if path.stat().st_mtime > newest), None)


def build(compiler: list[str], files: list, header: str, kept: bool = False) -> Path:
    """The program with ``files`` of kernels: those of the library, if ``kept``, or built like them, but optimised less.

    To compile them takes longer than all that they are asked.
    """
    common = [*compiler, "-std=c++17", "-ffp-contract=off", "-Wno-psabi", "-O1", f"-I{CSRC}"]
    objects_kept = {file.path: of_library(file.path) if kept else None for file in files}
    sources = [(file.path, file.flags.split()) for file in files if objects_kept[file.path] is None]
    sources += [
        (path, []) for path in (HERE / "compare.cpp", CSRC / "maps/kernels.cpp", CSRC / "simd/instruction_set.cpp")
    ]
    linked = [path for path in objects_kept.values() if path is not None]

    def make(folder: Path) -> Path:
        (folder / "instruction_sets.h").write_text(header)

        def compiled(source: tuple[Path, list[str]]) -> Path:
            path, flags = source
            target = folder / f"{path.parent.name}_{path.name}.o"
            command = [*common, f"-I{folder}", *flags, "-c", path, "-o", target]
            subprocess.run(command, check=True, env=environment())
            return target

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compiled, sources))
        command = [*compiler, *objects, *linked, "-o", folder / "compare"]
        subprocess.run(command, check=True, env=environment())
        return folder / "compare"

    return kept_program(HERE, [*common, sources, linked, header], make)


def kernels_for(machine: str) -> tuple[list, str]:
    files = RECIPE.isa_files(machine=machine)
    return [file for file in files if file.kind == "maps"], RECIPE.isa_header(files)


def compare(command: list, isa: str) -> str | None:
    """Name of the kernels that were compared, or None where the processor has not got them."""
    result = subprocess.run(command, capture_output=True, text=True, env=environment(MGA_CPU_ISA=isa))
    if result.returncode == 2 and "no such instruction set" in result.stdout:
        return None
    assert result.returncode == 0, result.stdout + result.stderr
    found = re.fullmatch(rf"(\w+) kernels, (?:fast|slow)\n{LAYERS} comparisons\n", result.stdout)
    assert found, result.stdout
    return found[1]


def test_every_instruction_set_here_is_the_definition():
    if shutil.which(COMPILER.split()[0]) is None:
        pytest.skip(f"there is no {COMPILER}")
    files, header = kernels_for(RECIPE.target_machine())
    program = build(COMPILER.split(), files, header, kept=True)
    assert compare([program], "baseline") == "portable"
    best = compare([program], "")
    for name in (file.path.stem for file in files if file.features):
        assert compare([program], name) in (name, None)
    assert best in {file.path.stem for file in files}


def test_avx512_is_the_definition_where_two_halves_stand_in_for_it():
    if platform.machine() not in ("x86_64", "AMD64") or shutil.which(COMPILER.split()[0]) is None:
        pytest.skip(f"not an x86-64, or there is no {COMPILER}")
    files = [file for file in kernels_for("x86_64")[0] if file.path.stem == "avx512"]
    header = "\n".join(
        [
            '#define MGA_INSTRUCTION_SETS(use) use(baseline, true) use(avx2, MGA_HAS("avx2") && MGA_HAS("fma"))',
            "#define MGA_MAP_KERNELS(use, ...) use(avx512, 1, __VA_ARGS__)\n",
        ]
    )
    emulated = [RECIPE.IsaFile(files[0].path, files[0].features, f"-mavx2 -mfma -I{HERE / 'avx512_emulation'}")]
    program = build(COMPILER.split(), emulated, header)
    if compare([program], "avx2") is None:
        pytest.skip("this processor has no AVX2, of which AVX-512 is emulated")


def test_aarch64_is_the_definition_in_an_emulator():
    compiler, emulator = "aarch64-linux-gnu-g++", shutil.which("qemu-aarch64")
    if shutil.which(compiler) is None or emulator is None:
        pytest.skip(f"there is no {compiler}, or no qemu-aarch64")
    program = build([compiler, "-static"], *kernels_for("aarch64"))
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda name: compare([emulator, program], name), ["", "baseline"])) == ["neon", "portable"]
    for name, said in (("neon", "neon kernels, fast\n"), ("avx2", "MGA_CPU_ISA=avx2: .* baseline to neon\n")):
        options = {"capture_output": True, "text": True, "env": environment(MGA_CPU_ISA=name)}
        assert re.fullmatch(said, subprocess.run([emulator, program, "--name"], **options).stdout)
