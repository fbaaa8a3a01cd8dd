"""A pack to train on, made for tests."""

from __future__ import annotations

from pathlib import Path

from pictures import save_smooth_picture

from mga.cli import main


def make_pack(folder: Path) -> Path:
    """Two smooth pictures in hr/ below ``folder``, and beside it their pack, which is returned."""
    (folder / "hr").mkdir()
    for seed, (name, size) in enumerate((("a", (72, 88)), ("b", (64, 80)))):
        save_smooth_picture(folder / "hr" / f"{name}.png", *size, seed)
    pack = folder / "train.safetensors"
    assert main(["prepare", str(folder / "hr"), "-o", str(pack), "--scale", "2"]) == 0
    return pack
