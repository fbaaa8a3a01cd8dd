"""Pictures as browsers show them: a file itself where they can, a copy of it where they cannot."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mga_kernels.images import Film, read_picture, save_image
from mga_kernels.images.opening import open_image, opened
from mga_kernels.images.size import shrink

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_ORIENTATION = 274
_LONGEST = 4096  # side of a copy


def as_shown(path: Path, name: str, folder: Path) -> tuple[Path, str]:
    """(file, its media type) that shows the image at ``path``; a copy is made in ``folder``, once.

    Of a film or of pages the copy is the first. Browsers turn JPEG as its metadata say; of others a copy is turned.
    """
    with opened(path) as stream:
        image = open_image(stream, name)
        kind, upright = image.format or "", image.format in ("JPEG", "MPO") or _upright(image)
    if kind in TYPES and upright:
        return path, TYPES[kind]
    copy = folder / f"{path.stem}.shown.png"
    if not copy.exists():
        picture = read_picture(path, b"", name)
        photo = next(picture.frames())[0] if isinstance(picture, Film) else picture
        if max(photo.size) > _LONGEST:
            factor = _LONGEST / max(photo.size)
            width, height = (max(1, round(side * factor)) for side in photo.size)
            photo = photo.upscaled(shrink(photo.rgb, (width, height)))
        save_image(photo.in_eight_bits(), copy, overwrite=True)
    return copy, TYPES["PNG"]


def _upright(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) == 1
    except Exception:  # whatever is wrong with its metadata, the copy is made without them
        return False
