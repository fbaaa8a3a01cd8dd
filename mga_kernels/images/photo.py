"""The photograph as the engine sees it: RGB, transparency, and what stands beside them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from ..errors import ImageError, InputError
from .info import Info
from .metadata import resized
from .result import PhotoImage
from .xmp import goes_round


@dataclass
class Photo:
    """One upright photograph.

    ``rgb`` is uint8 (H, W, 3) in the encoded space of its ICC profile; ``alpha`` is uint8 (H, W) or None. Where it is
    ``deep``, of more than 8 bits a channel, both are uint16 of 0 to 65535. ``hidden`` is
    like ``rgb`` but with the colours that stand below alpha 0, where ``rgb`` has those of the pixels around; None where
    there are none. A greyscale photograph (``grey``) has three equal channels and goes out as one. ``mode`` is Pillow's
    name of what it was read from, ``format`` that of its file (None for images in memory), ``shape`` that of the array
    it came in, if it did. ``info`` holds metadata under the names of ``PIL.Image.info``; ``notes`` say what could not
    be kept, one sentence each.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    mode: str = "RGB"
    format: str | None = None
    shape: tuple[int, ...] | None = None
    info: Info = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hidden: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow has it."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @property
    def deep(self) -> bool:
        return self.rgb.dtype == np.uint16

    @property
    def see_through(self) -> bool:
        """Whether any pixel is not opaque."""
        return self.alpha is not None and bool((self.alpha < np.iinfo(self.alpha.dtype).max).any())

    @property
    def goes_round(self) -> bool:
        """Whether its metadata say that it is a panorama of 360 degrees, whose left and right edges meet."""
        packet = self.info.get("xmp")
        return isinstance(packet, bytes) and goes_round(packet)

    @property
    def icc_profile(self) -> bytes | None:
        return self.info.get("icc_profile")

    @property
    def exif(self) -> bytes | None:
        return self.info.get("exif")

    def upscaled(self, rgb: np.ndarray) -> Photo:
        """This photograph with the pixels ``rgb``, (sH, sW, 3) of the type of its own.

        Transparency is resized (bicubic) to match, and so are the colours that stay below alpha 0.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != self.rgb.dtype:
            raise InputError(f"upscaled: expected {self.rgb.dtype} pixels (H, W, 3), got {rgb.dtype} {rgb.shape}")
        size = rgb.shape[1], rgb.shape[0]
        alpha, hidden = (plane if plane is None else resize(plane, size) for plane in (self.alpha, self.hidden))
        info = resized(self.info, (self.rgb.shape[1], self.rgb.shape[0]), size)
        return replace(self, rgb=rgb, alpha=alpha, hidden=hidden, info=info)

    def pixels(self) -> np.ndarray:
        """The colours as they go out, like ``rgb``: also those below alpha 0."""
        if self.alpha is None or self.hidden is None:
            return self.rgb
        return np.where(self.alpha[..., None] > 0, self.rgb, self.hidden)

    def levels(self) -> np.ndarray:
        """The values as they go out, (H, W, C) of the type of ``rgb``: grey or RGB, with alpha where there is one."""
        colours = self.pixels()[:, :, :1] if self.grey else self.pixels()
        return colours if self.alpha is None else np.concatenate([colours, self.alpha[:, :, None]], axis=2)

    def in_eight_bits(self) -> Photo:
        """This photograph with 8 bits a channel, rounded to the nearest."""
        alpha, hidden = (plane if plane is None else _eight(plane) for plane in (self.alpha, self.hidden))
        return replace(self, rgb=_eight(self.rgb), alpha=alpha, hidden=hidden)


def _eight(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def resize(plane: np.ndarray, size: tuple[int, int], beside: int = 0) -> np.ndarray:
    """uint8 or uint16 (H, W) or (H, W, C) -> the same of ``size`` (w, h): bicubic, with antialiasing.

    ``beside``: columns at both ends that only what is next to them is made of.
    """
    height, width = plane.shape[:2]
    box = beside, 0, width - beside, height
    if plane.dtype == np.uint8:
        return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC, box))
    if plane.ndim == 3:
        return np.stack([resize(plane[:, :, channel], size, beside) for channel in range(plane.shape[2])], axis=2)
    resized = np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BICUBIC, box))
    return np.clip(np.rint(resized), 0, np.iinfo(plane.dtype).max).astype(plane.dtype)


def check_pillow_holds(photo: Photo) -> None:
    """ImageError for a photograph that no mode of Pillow can hold: colours or alpha of more than 8 bits a channel."""
    if photo.deep and (not photo.grey or photo.alpha is not None):
        raise ImageError(
            "a Pillow image cannot hold colours or transparency of more than 8 bits a channel: read it by "
            "mga_kernels.images.read_image(path, deep=True), upscale that and write it by save_image, or give an array"
        )


def to_image(photo: Photo) -> Image.Image:
    """The photograph as a Pillow image of mode L, LA, RGB or RGBA with its metadata, which ``save`` keeps.

    Grey of more than 8 bits is of mode I;16; ImageError for colours of so many.
    """
    check_pillow_holds(photo)
    if photo.deep:
        return PhotoImage.of(Image.fromarray(np.ascontiguousarray(photo.rgb[:, :, 0])), photo.info)
    image = Image.fromarray(photo.pixels())
    if photo.grey:
        image = image.convert("L")
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha))
    return PhotoImage.of(image, photo.info)


def to_array(photo: Photo) -> np.ndarray:
    """The photograph as an array with the type, dimensions and channels of the array that it was read from."""
    if photo.deep:
        levels = photo.levels()
        keeps = levels.shape[2] > 1 or (photo.shape is not None and len(photo.shape) == 3)
        return levels if keeps else levels[:, :, 0]
    plain = photo.alpha is None and not photo.grey  # then Pillow would only copy
    array = photo.rgb if plain else np.asarray(to_image(photo))
    return array[:, :, None] if photo.shape is not None and len(photo.shape) > array.ndim else array


def bleed(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give fully transparent pixels the colour of the visible ones around them; (H, W, 3) in and out.

    Editors store black or white there, which a network would smear over the edge as a fringe. Colours are averaged
    over ever larger blocks until every block holds a visible pixel, and read back from fine to coarse.
    """
    visible = alpha > 0
    if visible.all() or not visible.any():
        return rgb
    return np.where(visible[..., None], rgb, np.rint(_fill(rgb.astype(np.float32), visible)).astype(rgb.dtype))


def _fill(colour: np.ndarray, known: np.ndarray) -> np.ndarray:
    if known.all():
        return colour
    height, width = known.shape
    rows, columns = -(-height // 2), -(-width // 2)
    weight = np.pad(known.astype(np.float32), ((0, height % 2), (0, width % 2)))
    padded = np.pad(colour, ((0, height % 2), (0, width % 2), (0, 0))) * weight[..., None]
    count = weight.reshape(rows, 2, columns, 2).sum((1, 3))
    total = padded.reshape(rows, 2, columns, 2, 3).sum((1, 3))
    coarse = _fill(total / np.maximum(count, 1)[..., None], count > 0)
    grown = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(known[..., None], colour, grown)
