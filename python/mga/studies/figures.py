"""The pictures of ``mga figures``, the paper's Figures 2, 5 and 6, of one image."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.engine.pictures import to_tensor, to_uint8
from mga_kernels.networks import MaskGuidedNetwork

from ..drawing.overlay import most_refined
from ..drawing.sheets import Box, crops_sheet, error_sheet, mask_sheet
from ..evaluation.masks import largest, predict, unit_of
from ..evaluation.metrics import psnr_y, ssim_y
from ..evaluation.resize import imresize

VARIANTS = {"-B": "base", "-D": "decomposed", "-A": "all", "-M": "masked"}
KINDS = ("error", "crops", "mask")


def kinds_of(model: MaskGuidedSR) -> tuple[str, ...]:
    """What there is to draw of a model."""
    return KINDS if isinstance(model.model, MaskGuidedNetwork) else ("error", "crops")


def draw(
    model: MaskGuidedSR, hr: np.ndarray, lr: np.ndarray, kinds: tuple[str, ...], box: Box | None, training: dict
) -> dict[str, Image.Image]:
    """The pictures of one image by kind; ``training`` are the facts in the weights file, for the unit of the mask."""
    learned = "mask" in kinds_of(model)
    shown = [name for name in VARIANTS if learned or name != "-A"]
    wanted = {"error": ["-B", "-A"], "crops": shown}
    needed = dict.fromkeys(name for kind in kinds for name in wanted.get(kind, ()))
    images = {name: to_uint8(model(to_tensor(lr), VARIANTS[name])[0]) for name in needed}
    result = {}
    if "error" in kinds:
        result["error"] = error_sheet(lr, images["-B"], images["-A"])
    pair = predict(model, lr) if "mask" in kinds or (learned and "crops" in kinds) else None
    if "crops" in kinds:
        made = {"bicubic": imresize(lr, model.scale)} | {name: images[name] for name in shown}
        named = {
            f"{name}\n{psnr_y(image, hr, model.scale):.2f} dB / {ssim_y(image, hr, model.scale):.4f}": image
            for name, image in made.items()
        }
        mask = model.explain(lr).mask if pair is None else pair.mask
        result["crops"] = crops_sheet(hr, named, box or place(model, mask, hr.shape[:2]))
    if "mask" in kinds and pair is not None:
        unit, _ = unit_of([pair], training)
        result["mask"] = mask_sheet(lr, hr, pair.target(unit), pair.mask, model.patch_size)
    return result


def place(model: MaskGuidedSR, mask: np.ndarray, size: tuple[int, int]) -> Box:
    """The square of about a sixth of the image's shorter side in which most is refined."""
    cell = model.patch_size * model.scale
    rows, columns = (side // cell for side in size)
    inside = mask[:rows, :columns]
    window = max(1, round(min(rows, columns) / 6))
    threshold = model.amount.threshold
    if threshold is None:
        k = min(model.resolve_k(*(side // model.scale for side in size)), inside.size)
    else:
        k = int((inside > threshold).sum())
    chosen = largest(inside, max(1, k))
    found = most_refined(inside, np.sort(chosen), window, 1)
    row, column = found[0] if found else (0, 0)
    return column * cell, row * cell, window * cell
