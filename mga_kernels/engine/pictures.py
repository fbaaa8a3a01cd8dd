"""Photographs in the forms that callers have them in: paths, PIL images, arrays, tensors."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import images
from ..notices import warn
from ..ops import image_to_input, output_to_image

DEEPEST = np.float32(0xFFFF)

ImageLike = str | os.PathLike | Image.Image | np.ndarray | images.Photo
Picture = Image.Image | np.ndarray | images.Photo


def read(image: ImageLike) -> images.Photo:
    """The photograph; ImageError where what is made of it could not be in the form of ``image`` (``in_form_of``)."""
    if isinstance(image, images.Photo):
        return image
    photo = images.read_image(image, deep=True)
    if not isinstance(image, np.ndarray):
        images.check_pillow_holds(photo)
    return photo


def values(photo: images.Photo) -> Tensor:
    """(H, W, 3) as plans take it: its bytes, or float32 in [0, 1] where it has more than 8 bits a channel."""
    if photo.deep:
        return torch.from_numpy(photo.rgb.astype(np.float32) / DEEPEST)
    return shared(photo.rgb)


def levels(picture: Tensor) -> np.ndarray:
    """What plans make of ``values``, as the pixels of a photograph of as many bits."""
    if picture.dtype == torch.uint8:
        return picture.numpy()
    return np.rint(picture.numpy() * DEEPEST).astype(np.uint16)


def like(source: ImageLike, photo: images.Photo) -> Picture:
    """The photograph in the form of what it was read from; warnings say what its ``notes`` do, unless it has them."""
    if not isinstance(source, images.Photo):
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "filename", "")
        for note in photo.notes:
            warn(f"{name}: {note}" if name else note)
    return in_form_of(source, photo)


def in_form_of(source: ImageLike, photo: images.Photo) -> Picture:
    """The same without a warning."""
    if isinstance(source, images.Photo):
        return photo
    return images.to_array(photo) if isinstance(source, np.ndarray) else images.to_image(photo)


def to_tensor(rgb: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (H, W, 3) -> float32 (1, 3, H, W) in [0, 1], channels-last; bytes travel to the device, not floats."""
    return image_to_input(shared(rgb)[None].to(device), *rgb.shape[:2])


def shared(rgb: np.ndarray) -> Tensor:
    """The same bytes as a tensor, copied where torch cannot share such memory."""
    return torch.from_numpy(rgb.copy() if not rgb.flags.writeable or min(rgb.strides) < 0 else rgb)


def to_uint8(image: Tensor) -> np.ndarray:
    """Floating (3, H, W) in [0, 1] -> uint8 (H, W, 3), rounded to nearest (half to even)."""
    return output_to_image(image[None], *image.shape[1:])[0].cpu().numpy()
