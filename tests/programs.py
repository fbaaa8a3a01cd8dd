"""Programs that tests compile, kept in build/programs: to compile one takes longer than all that it is asked."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"
KEPT = HERE.parent / "build/programs"


def environment(**variables: str) -> dict[str, str]:
    """This process's without its sanitizers: compilers need none, and a program has its own."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | variables


def kept_program(own: Path, words: list[object], make: Callable[[Path], Path]) -> Path:
    """What ``make(folder)`` compiles in that folder, made anew where anything it depends on has changed.

    That is the sources of the library, the files in the folder ``own``, the compiler, which is the first of ``words``,
    and the others of these, which are its flags and whatever else ``make`` puts in.
    """
    words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in words]
    version = subprocess.run([words[0], "--version"], capture_output=True, check=True, env=environment()).stdout
    found = hashlib.sha256(version + repr(words).encode())
    for path in sorted(path for folder in (CSRC, own) for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(HERE.parent)} {path.stat().st_size} ".encode() + path.read_bytes())
    program = KEPT / found.hexdigest()[:16]
    if not program.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            os.replace(shutil.copy(make(Path(folder)), Path(folder) / "whole"), program)
    return program
