"""A photograph to take the time of: of noise everything would be refined."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
from PIL import Image


def photograph(width: int, height: int) -> np.ndarray:
    """That of the demo in this size, uint8 (height, width, 3)."""
    with as_file(files("mga") / "assets" / "demo.png") as path, Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
