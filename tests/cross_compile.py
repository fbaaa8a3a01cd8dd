"""Compiles every C++ file of the library for another processor: cross_compile.py COMPILER FOLDER.

With the flags of setup.py but without optimisation, and with torch's headers, which are the same for all processors,
read once for all files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recipe import load_recipe


def main() -> None:
    compiler, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    os.environ["CXX"] = compiler
    recipe = load_recipe()
    folder.mkdir(parents=True, exist_ok=True)
    files = recipe.isa_files()
    recipe.write_if_changed(folder / "instruction_sets.h", recipe.isa_header(files))
    common = [compiler, *recipe.COMMON_FLAGS.split(), "-Werror", "-O0", f"-I{recipe.CSRC}", f"-I{folder}"]
    common += [
        f"-DTORCH_TARGET_VERSION={recipe.TORCH_TARGET_MACRO}",
        "-isystem",
        f"{recipe.package_dir('torch')}/include",
    ]
    prefix = folder / "prefix.h"
    prefix.write_text('#include "torch/glue.h"\n')
    subprocess.run([*common, "-x", "c++-header", prefix, "-o", f"{prefix}.gch"], check=True)

    def compiled(source: Path, *flags: str) -> int:
        return subprocess.run([*common, *flags, "-c", source, "-o", os.devnull]).returncode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        plain = [pool.submit(compiled, path, "-include", "prefix.h") for path in recipe.library_sources()]
        of_sets = [pool.submit(compiled, file.path, *file.flags.split()) for file in files]
    if any(future.result() for future in plain + of_sets):
        sys.exit(f"cross_compile: {compiler} does not compile all files")
    sets = ", ".join(f"{file.kind}/{file.path.stem}" for file in files)
    print(f"cross_compile: {compiler} compiles {len(plain)} files, and the kernels {sets}")


if __name__ == "__main__":
    main()
