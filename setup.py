"""Builds the two native parts of ``mga_kernels``; everything else is in pyproject.toml.

``mga_kernels/_C.so``       torch operators through the LibTorch stable ABI: torch >= 2.11, any Python
``mga_kernels/_host.*.so``  pybind11 module for what is no tensor op
``mga_kernels/_alone.*.so`` pybind11 module with the convolutions in float maps once more, for NumPy's arrays

Environment:
  MGA_CUDA=auto|0|1   CUDA kernels: if a toolkit is found (default), never, or fail without a toolkit
  MGA_CUDA_ARCHS      compute capabilities, default "80;90;100;120"; PTX of the last one is added for newer GPUs
  MGA_SANITIZE        for example "address,undefined": a debug build with these sanitizers
  MGA_WERROR=0|1      whether a compiler's warning ends the build; 0 by default, since newer compilers have new ones
  CUDA_HOME           root of the toolkit, default CUDA_PATH or /usr/local/cuda
  CXX                 C++ compiler, default g++; the instruction sets are those of the processors that it builds for
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
ALONE = [CSRC / "alone/module.cpp", CSRC / "maps/kernels.cpp", CSRC / "simd/instruction_set.cpp"]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
TORCH_TARGET = "2.11"
TORCH_TARGET_MACRO = "0x020b000000000000"
DEFAULT_ARCHS = "80;90;100;120"
# The first line of every csrc/*/isa/*.cpp: which processors it is for, and what they must have. The file is found by
# being there; see csrc/simd/instruction_set.h.
FIRST_LINE = re.compile(r"// Instruction set(?: of (\w+))?: ([\w ]+)\.( Compiled for it as a whole\.)?\n")
MACOS = sys.platform == "darwin"
# Contraction is off, so that a product and a sum round twice, as in torch, unless a kernel asks for one rounding.
# Vectors are passed between inlined functions only, so it does not matter how GCC 4.5 passed them.
COMMON_FLAGS = "-std=c++17 -ffp-contract=off -fPIC -fvisibility=hidden -Wall -Wextra -Wshadow -Wno-psabi"


def target_machine() -> str:
    """The kind of processor that the compiler builds for: this one, unless it is a cross-compiler."""
    try:
        command = [*shlex.split(os.environ.get("CXX", "g++")), "-dumpmachine"]
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("-")[0]
    except (OSError, subprocess.CalledProcessError):
        name = platform.machine()
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(name, name)


def package_dir(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"mga_kernels: building needs {name}; install it first and give pip --no-build-isolation")
    return Path(spec.submodule_search_locations[0])


def find_toolkit() -> Path | None:
    """Root of the CUDA toolkit. An nvcc on PATH may be a wrapper without headers beside it, so PATH is not asked."""
    for place in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if place and (Path(place) / "bin/nvcc").exists():
            return Path(place).resolve()
    return None


def static_runtime(toolkit: Path) -> Path:
    """The folder of libcudart_static.a; where none has it lib64, which the linker's message then names."""
    folders = [toolkit / "lib64", toolkit / f"targets/{target_machine()}-linux/lib", toolkit / "lib"]
    return next((folder for folder in folders if (folder / "libcudart_static.a").exists()), folders[0])


def warnings_are_errors() -> bool:
    wish = os.environ.get("MGA_WERROR", "0")
    if wish not in ("0", "1"):
        sys.exit(f"mga_kernels: MGA_WERROR={wish!r} is neither 0 nor 1")
    return wish == "1"


def toolkit_version(toolkit: Path) -> str:
    text = subprocess.run([toolkit / "bin/nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release ([\d.]+)", text)
    return found.group(1) if found else "unknown"


def choose_toolkit() -> Path | None:
    wish = os.environ.get("MGA_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        sys.exit(f"mga_kernels: MGA_CUDA={wish!r} is none of auto, 0 and 1")
    toolkit = None if wish == "0" else find_toolkit()
    if wish == "1" and toolkit is None:
        sys.exit("mga_kernels: MGA_CUDA=1, but no CUDA toolkit was found; set CUDA_HOME to its root")
    if toolkit is None:
        reason = "MGA_CUDA=0" if wish == "0" else "no CUDA toolkit found"
        print(f"mga_kernels: {reason}: building the CPU operators only", flush=True)
    else:
        print(f"mga_kernels: building the CPU operators and the CUDA kernels (toolkit {toolkit})", flush=True)
    return toolkit


def cuda_archs() -> list[str]:
    archs = [arch.strip() for arch in os.environ.get("MGA_CUDA_ARCHS", DEFAULT_ARCHS).split(";") if arch.strip()]
    if not archs or not all(re.fullmatch(r"\d+[af]?", arch) for arch in archs):
        sys.exit(f"mga_kernels: MGA_CUDA_ARCHS={';'.join(archs)!r} is not a list like {DEFAULT_ARCHS!r}")
    return archs


def gencode(archs: list[str]) -> str:
    code = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    return " ".join([*code, f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"])


@dataclass(frozen=True)
class IsaFile:
    """A file of kernels for one instruction set: NAME.cpp defines ``mga::NAME::..._kernels``."""

    path: Path
    features: frozenset[str]
    flags: str

    @property
    def kind(self) -> str:
        """The folder of the table that it fills."""
        return self.path.parent.parent.name


def isa_files(csrc: Path = CSRC, machine: str | None = None) -> list[IsaFile]:
    """Those for a kind of processor, by default the compiler's. By folder and set; each has all of the one before."""
    machine = machine or target_machine()
    files = []
    for path in sorted(csrc.glob("*/isa/*.cpp")):
        found = FIRST_LINE.match(path.read_text())
        if found is None:
            sys.exit(f"mga_kernels: {path} must begin with a line like `// Instruction set of x86_64: avx2 fma.`")
        features = frozenset(found[2].split()) - {"none"}
        if found[1] in (None, machine):
            flags = " ".join(f"-m{feature}" for feature in found[2].split()) if found[3] else ""
            files.append(IsaFile(path, features, flags))
    files.sort(key=lambda file: (file.kind, len(file.features)))
    sets = sorted({file.features for file in files}, key=len)
    for less, more in itertools.pairwise(sets):
        if not less < more:
            apart = ", ".join(sorted(less ^ more))
            sys.exit(
                f"mga_kernels: of two instruction sets in csrc/*/isa one must have all of the other; apart: {apart}"
            )
    return files


def library_sources() -> list[Path]:
    """The C++ files of the library that are the same for all processors."""
    others = {CSRC / "host.cpp", CSRC / "alone/module.cpp", *CSRC.glob("*/isa/*.cpp")}
    return sorted(set(CSRC.rglob("*.cpp")) - others)


def isa_header(files: list[IsaFile]) -> str:
    """The instruction sets of this build by name, and the tables made for them, as macros."""
    named: dict[str, frozenset[str]] = {"baseline": frozenset()}
    for file in files:
        if file.features and named.setdefault(file.path.stem, file.features) != file.features:
            sys.exit(f"mga_kernels: the files {file.path.name} in csrc/*/isa name different instructions")
    sets = sorted(named, key=lambda name: len(named[name]))
    number = {named[name]: i for i, name in enumerate(sets)}
    if len(number) != len(sets):
        sys.exit(f"mga_kernels: two names of one instruction set in csrc/*/isa: {', '.join(sets)}")
    known = []
    for name in sets:
        there = " && ".join(f'MGA_HAS("{feature}")' for feature in sorted(named[name])) or "true"
        known.append(f"use({name}, {there})")
    lines = [f"#define MGA_INSTRUCTION_SETS(use) {' '.join(known)}"]
    for kind, macro in (("ops", "OPERATOR"), ("convolution", "CONVOLUTION"), ("maps", "MAP")):
        some = [(file.path.stem, number[file.features]) for file in files if file.kind == kind]
        uses = " ".join(f"use({name}, {of_set}, __VA_ARGS__)" for name, of_set in some)
        lines.append(f"#define MGA_{macro}_KERNELS(use, ...) {uses}")
    return "\n".join(["// Made by setup.py from the first lines of csrc/*/isa/*.cpp.", "#pragma once", *lines, ""])


def define(name: str, value: str) -> str:
    """A macro that is a C string, quoted for the shell that ninja starts."""
    return f"""'-D{name}="{value}"'"""


class NinjaFile:
    """The text of a build.ninja for one shared library."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines: list[str] = []
        self.objects: list[Path] = []

    def rule(self, name: str, command: str, dependencies: bool = True) -> None:
        self.lines += [f"rule {name}", f"  command = {command}"]
        if dependencies:
            self.lines += ["  depfile = $out.d", "  deps = gcc"]

    def compile(self, rule: str, source: Path, options: str = "") -> None:
        target = self.folder / source.relative_to(CSRC).with_name(f"{source.name}.o")
        self.lines.append(f"build {self.escape(target)}: {rule} {self.escape(source)}")
        if options:
            self.lines.append(f"  options = {options}")
        self.objects.append(target)

    def link(self, rule: str, output: Path) -> None:
        self.lines.append(f"build {self.escape(output)}: {rule} {' '.join(map(self.escape, self.objects))}")

    @staticmethod
    def escape(path: Path) -> str:
        return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")

    def run(self, verbose: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "build.ninja").write_text("\n".join(self.lines) + "\n")
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        command = [sys.executable, "-m", "ninja", "-C", str(self.folder), *jobs, *(["-v"] if verbose else ["--quiet"])]
        if subprocess.run(command).returncode:
            sys.exit("mga_kernels: the native build failed; the compiler's message is above")


def write_if_changed(path: Path, text: str) -> None:
    """So that nothing is compiled anew for a file that is the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


class BuildNative(build_ext):
    def run(self) -> None:
        package_dir("ninja")
        self.toolkit = choose_toolkit()
        self.sanitize, self.strict = os.environ.get("MGA_SANITIZE", ""), warnings_are_errors()
        if self.editable_mode:  # whose temporary folder is gone afterwards, so that a change would compile everything
            self.build_temp = f"build/temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        super().run()

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        kind = f"{'cuda' if self.toolkit else 'cpu'}-{self.sanitize.replace(',', '-') or 'release'}"
        ninja = NinjaFile(Path(self.build_temp).resolve() / kind / ext.name.rpartition(".")[2])
        makers = {"_C": self.torch_library, "_host": self.host_module, "_alone": self.alone_module}
        makers[ext.name.rpartition(".")[2]](ninja, output)
        ninja.run(verbose=self.verbose > 1)

    def optimisation(self) -> str:
        if self.sanitize:
            return f"-O1 -g1 -fno-omit-frame-pointer -fsanitize={self.sanitize} -fno-sanitize-recover=undefined"
        # Aligned, so that how fast a loop is does not depend on what is linked before it: 2 to 3 % of SPAN.
        return "-O3 -falign-functions=64 -falign-loops=32"

    def flags(self) -> str:
        return f"{COMMON_FLAGS} {'-Werror ' if self.strict else ''}{self.optimisation()}"

    @property
    def small(self) -> str:
        """For what calls kernels, a few times for an image: its code is smaller than fast."""
        return "" if self.sanitize else "-Os"

    def options_of(self, file: IsaFile) -> str:
        """Float maps in plain C++ with -O2: a fifth less of a wheel, whose size is limited, for 1.3 times the time."""
        return "-O2" if file.kind == "maps" and not file.features and not self.sanitize else file.flags

    def compiler_rules(self, ninja: NinjaFile, flags: str, libraries: str) -> None:
        cxx = os.environ.get("CXX", "g++")
        sanitize = f"-fsanitize={self.sanitize}" if self.sanitize else ""
        ninja.rule("cxx", f"{cxx} -MMD -MF $out.d {self.flags()} {flags} $options -c $in -o $out")
        # What goes into a wheel is stripped; what is built in place keeps its names for profilers and debuggers.
        strip = "" if self.sanitize or self.inplace else "-Wl,-x" if MACOS else "-s"
        ninja.rule("link", f"{cxx} -shared {sanitize} {strip} $in -o $out {libraries}", dependencies=False)

    def torch_library(self, ninja: NinjaFile, output: Path) -> None:
        torch = package_dir("torch")
        # csrc/torch and torch's own headers share a prefix; no file of theirs has the same name.
        flags = f"-I'{CSRC}' -I'{ninja.folder}' -DTORCH_TARGET_VERSION={TORCH_TARGET_MACRO} -isystem '{torch}/include'"
        libraries = f"-L'{torch}/lib' -ltorch -ltorch_cpu"
        if not MACOS:  # whose linker knows none of these options, and needs none
            libraries = f"-Wl,--no-as-needed {libraries} -Wl,--as-needed -Wl,--exclude-libs,ALL"
        if self.toolkit:
            flags += " -DMGA_WITH_CUDA -DUSE_CUDA"
            # libcudart is linked in, so the library needs no toolkit, and no driver, to be loaded.
            libraries += f" -L'{static_runtime(self.toolkit)}' -lcudart_static -lrt -ldl -lpthread"
        self.compiler_rules(ninja, flags, libraries)
        isa = isa_files()
        for source in library_sources():
            ninja.compile("cxx", source, self.small if source.parent.name == "torch" else "")
        for file in isa:
            ninja.compile("cxx", file.path, self.options_of(file))
        write_if_changed(ninja.folder / "instruction_sets.h", isa_header(isa))
        if self.toolkit:
            # nvcc's report goes to a log beside the object, with the registers and spills of every kernel; a spill is a
            # warning.
            strict = "--Werror all-warnings " if self.strict else ""
            nvcc_flags = (
                f"-std=c++17 -O3 -lineinfo {strict}-Xptxas -v,-warn-spills "
                f"-I'{CSRC}' -Xcompiler -fPIC,-fvisibility=hidden,-Wall {gencode(cuda_archs())}"
            )
            nvcc = self.toolkit / "bin/nvcc"
            report = "> $out.log 2>&1 || (cat $out.log; false)"
            ninja.rule("cuda", f"'{nvcc}' -MD -MF $out.d {nvcc_flags} -c $in -o $out {report}")
            for source in sorted(CSRC.rglob("*.cu")):
                ninja.compile("cuda", source)
        ninja.link("link", output)

    def host_module(self, ninja: NinjaFile, output: Path) -> None:
        facts = [
            define("MGA_VERSION", VERSION),
            define("MGA_TORCH_TARGET", TORCH_TARGET),
            define("MGA_FLAGS", self.flags()),
            define("MGA_SANITIZE", self.sanitize),
        ]
        if self.toolkit:
            facts += [
                "-DMGA_WITH_CUDA",
                define("MGA_CUDA_VERSION", toolkit_version(self.toolkit)),
                define("MGA_CUDA_ARCHS", ";".join(cuda_archs())),
            ]
        self.python_module(ninja, " ".join(facts))
        ninja.compile("cxx", CSRC / "host.cpp", self.small)
        ninja.link("link", output)

    def alone_module(self, ninja: NinjaFile, output: Path) -> None:
        # Of torch the headers that need none of its libraries.
        torch = package_dir("torch")
        self.python_module(ninja, f"-I'{CSRC}' -I'{ninja.folder}' -DMGA_ALONE -isystem '{torch}/include'")
        isa = isa_files()
        for source in ALONE:
            ninja.compile("cxx", source, self.small if source.parent.name == "alone" else "")
        for file in isa:
            if file.kind == "maps":
                ninja.compile("cxx", file.path, self.options_of(file))
        write_if_changed(ninja.folder / "instruction_sets.h", isa_header(isa))
        ninja.link("link", output)

    def python_module(self, ninja: NinjaFile, flags: str) -> None:
        """The rules of a module of pybind11."""
        python = sysconfig.get_paths()["include"]
        self.compiler_rules(
            ninja,
            f"{flags} -isystem '{package_dir('pybind11')}/include' -isystem '{python}'",
            "-undefined dynamic_lookup" if MACOS else "",  # Python itself is there when the module is loaded
        )

    def get_ext_filename(self, fullname: str) -> str:
        # The operators depend on no Python version, and their file name says so.
        if fullname.rpartition(".")[2] == "_C":
            return fullname.replace(".", os.sep) + ".so"
        return super().get_ext_filename(fullname)


setup(
    ext_modules=[Extension(f"mga_kernels.{name}", []) for name in ("_C", "_host", "_alone")],
    cmdclass={"build_ext": BuildNative},
)
