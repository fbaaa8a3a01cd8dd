"""Reading a photograph from a file, a Pillow image or an array, and refusing what could not be kept whole."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from ..errors import ImageError, InputError, MGAError, OutOfMemoryError
from ..memory import GIB, require_memory
from .headers import bits_per_sample
from .metadata import orientation, read_metadata, upright
from .photo import Photo, bleed

# Formats of single pictures. Others that Pillow opens run outside programs, hold vectors, layers, films or readings of
# instruments, or are known to it by name only.
READABLE = tuple("JPEG PNG WEBP TIFF BMP DIB GIF PPM JPEG2000 AVIF TGA QOI PCX SGI SUN DDS ICO".split())
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_lock = threading.Lock()


def suffixes() -> frozenset[str]:
    """What the names of files that ``read_image`` can read end with, in lower case with the dot."""
    Image.init()
    kinds = {*READABLE, "MPO"}  # which Pillow reads as JPEG
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in kinds)


def read_image(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> Photo:
    """Read a photograph: turned upright, as 8-bit RGB and alpha, with its metadata.

    ``source`` is the path of a file, a Pillow image, or a uint8 array (H, W), (H, W, 1), (H, W, 2) grey and alpha,
    (H, W, 3) or (H, W, 4). CMYK and Lab become sRGB through the embedded profile; RGB and grey keep their profile.
    Raises ImageError for a file that is missing, damaged or no image, and for what 8 bits and one frame cannot hold
    (16-bit images, animations, several pages); OutOfMemoryError for an image too large to decode.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pillow(source, "the image")
    if isinstance(source, (str, os.PathLike)):
        return _from_file(Path(source))
    raise InputError(f"read_image: expected a path, a PIL image or a uint8 array, got {type(source).__name__}")


def _from_array(array: np.ndarray) -> Photo:
    if array.dtype != np.uint8:
        remedy = "scale it to 0..255, round, and convert with astype(np.uint8)"
        raise InputError(f"read_image: expected a uint8 array, got {array.dtype}; {remedy}")
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] > 4):
        layouts = "(H, W), (H, W, 1), (H, W, 2), (H, W, 3) or (H, W, 4)"
        raise InputError(f"read_image: expected a non-empty array of shape {layouts}, got {array.shape}")
    if array.ndim == 3 and array.shape[2] == 3:
        return Photo(np.ascontiguousarray(array), shape=array.shape)  # as it is: Pillow would copy it twice
    flat = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    photo = _from_pillow(Image.fromarray(np.ascontiguousarray(flat)), "the array")
    photo.shape = array.shape
    return photo


def _from_file(path: Path) -> Photo:
    with _opened(path) as stream:
        notes: list[str] = []
        try:
            with _bomb_limit_off(notes):
                Image.init()
                image = Image.open(stream, formats=[kind for kind in READABLE if kind in Image.OPEN])
                frames = getattr(image, "n_frames", 1)
        except UnidentifiedImageError:
            kinds = ", ".join(READABLE)
            raise ImageError(f"{path} is not an image of a kind that can be read here ({kinds})") from None
        except Exception as problem:  # a damaged file raises whatever its decoder trips over
            raise ImageError(f"{path} is damaged and cannot be read ({_line(problem)})") from problem
        if frames > 1 and image.format == "MPO":  # a JPEG whose further pictures are previews
            notes.append(f"only its main picture was used, not the {frames - 1} smaller ones that its camera added")
        elif frames > 1:
            remedy = "extract the one you want as a file of its own"
            raise ImageError(f"{path} holds {frames} frames or pages and only single images are upscaled; {remedy}")
        sizes = len(image.info.get("sizes", ())) if image.format == "ICO" else 1
        if sizes > 1:
            notes.append(f"only its largest picture was used, not the {sizes - 1} smaller ones")
        return _from_pillow(image, str(path), notes, stream)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file for reading, or an ImageError that says why not."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{path} is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is not a regular file")
        if status.st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes)")
        stream = path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the name
        raise ImageError(f"{path} cannot be opened ({_line(problem)})") from problem
    with stream:
        yield stream


@contextmanager
def _bomb_limit_off(notes: list[str]) -> Iterator[None]:
    """Pillow's limit on pixels is for the whole process and below what cameras make; memory is checked here instead."""
    with _lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
    notes += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]


def _from_pillow(
    image: Image.Image, name: str, notes: list[str] | None = None, stream: BinaryIO | None = None
) -> Photo:
    notes = [] if notes is None else notes
    width, height = image.size
    if width == 0 or height == 0:
        raise ImageError(f"{name} is empty: {width}x{height} pixels")
    _refuse_deep(image, name, stream)
    # Decoded (4 bytes), turned (4), RGB (3) and alpha (1); with transparency, three float planes for the edges.
    bytes_per_pixel = 12 + (32 if image.has_transparency_data else 0)
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(322, 0) * tags.get(323, 0)  # a tile of a TIFF may be larger than its image
    needed = max(width * height, tile) * bytes_per_pixel
    require_memory(needed, f"reading {name} ({width}x{height} pixels)", "crop it or use a machine with more memory")
    source_format, mode = ("JPEG" if image.format == "MPO" else image.format), image.mode
    try:
        with _bomb_limit_off(notes) if image.format == "TIFF" else nullcontext():  # only TIFF looks at it again
            image.load()
    except MemoryError as problem:
        size = f"{needed / GIB:.1f} GiB"
        raise OutOfMemoryError(f"reading {name} ({width}x{height}) ran out of memory near {size}; crop it") from problem
    except Exception as problem:
        raise ImageError(f"{name} is damaged and cannot be read ({_line(problem)})") from problem
    _note_extra_channels(image, notes)
    info = read_metadata(image, notes)
    turn = _TURN.get(orientation(image, notes))
    try:
        plain, alpha, profile = _to_rgb(image, info.get("icc_profile"), notes)
    except MGAError:
        raise
    except Exception as problem:
        raise ImageError(f"{name} of mode {mode} cannot be converted to RGB ({_line(problem)})") from problem
    info.pop("icc_profile", None)
    if profile:
        info["icc_profile"] = profile
    if turn is not None:
        plain, alpha = plain.transpose(turn), alpha and alpha.transpose(turn)
        info = upright(info, notes)
    grey = plain.mode == "L"
    rgb = np.array(plain.convert("RGB"))
    coverage = None if alpha is None else np.array(alpha)
    if coverage is not None:
        rgb = bleed(rgb, coverage)
    return Photo(rgb, coverage, grey, mode, source_format, None, info, notes)


def _refuse_deep(image: Image.Image, name: str, stream: BinaryIO | None) -> None:
    """Images of more than 8 bits a channel would lose them, so they are refused."""
    bits = 16 if image.mode in _DEEP_MODES or ";" in image.mode else 8
    if image.format == "TIFF" and hasattr(image, "tag_v2"):
        declared = image.tag_v2.get(258, 8)
        bits = max(bits, *(declared if isinstance(declared, tuple) else (declared,)))
    elif isinstance(image, ImageFile.ImageFile) and image.format:
        try:  # a Pillow image opened elsewhere: its file, where it is still there, says what it was
            with nullcontext(stream) if stream else open(image.filename or os.devnull, "rb") as opened:
                bits = max(bits, bits_per_sample(opened, image.format))
        except OSError:
            pass
    if bits > 8:
        raise ImageError(
            f"{name} has {'more than 8' if image.mode in 'IF' else bits} bits per channel, which would be lost; "
            "convert it to 8 bits first (for example `magick IN -depth 8 OUT`)"
        )


def _note_extra_channels(image: Image.Image, notes: list[str]) -> None:
    if image.mode == "RGBX" or (hasattr(image, "tag_v2") and image.tag_v2.get(338) and image.mode in ("RGB", "CMYK")):
        notes.append("its extra channel, which is not marked as transparency, was left out")


def _to_rgb(
    image: Image.Image, profile: bytes | None, notes: list[str]
) -> tuple[Image.Image, Image.Image | None, bytes | None]:
    """An L or RGB image, its alpha (L) or None, and the ICC profile that now applies."""
    if image.mode == "CMYK":
        return _cmyk_to_rgb(image, profile, notes), None, _srgb_profile().tobytes()
    if image.mode == "LAB":
        notes.append("converted from Lab to sRGB")
        return image.convert("RGB"), None, _srgb_profile().tobytes()
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        if image.mode == "PA":  # Pillow takes no other way out of this mode
            image = image.convert("RGBA")
        joined = image.convert("LA" if grey else "RGBA")
        return joined.convert("L" if grey else "RGB"), joined.getchannel("A"), profile
    if image.mode in ("HSV", "YCbCr", "RGBX"):
        notes.append(f"converted from {image.mode} to RGB")
    return image.convert("L" if grey else "RGB"), None, profile


def _cmyk_to_rgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """CMYK through its own profile to sRGB as print tools do it: relative colorimetric, black point compensated."""
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                _srgb_profile(),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            notes.append("converted from CMYK to sRGB through its ICC profile")
            return cast(Image.Image, converted)  # None only for in-place work
        except (ImageCms.PyCMSError, OSError) as problem:
            notes.append(f"its CMYK profile cannot be used ({_line(problem)})")
    notes.append("converted from CMYK to sRGB without a profile, so colours are approximate")
    return image.convert("RGB")


def _srgb_profile() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _line(problem: BaseException) -> str:
    """One line about an exception of somebody else's."""
    text = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    return " ".join(text.split())
