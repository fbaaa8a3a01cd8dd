"""Reading a photograph from a file, a Pillow image or an array, and refusing what could not be kept whole."""

from __future__ import annotations

import io
import os
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageCms

from ..errors import ImageError, InputError, MGAError, OutOfMemoryError, reason_of
from ..system.memory import GIB, require_memory
from .deep import DEEP_BYTES, EXTRACT, bits_of, lacking, of_levels, of_tiff, own_tiff, refuse_deep, turned, values_of
from .info import Info
from .levels import EXTRA_CHANNEL
from .metadata import read_metadata, stated_in_file
from .opening import Damaged, file_of, limit_off, mended, open_image, opened
from .photo import Photo, bleed

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: str | os.PathLike[str] | Image.Image | np.ndarray, deep: bool = False) -> Photo:
    """Read a photograph: turned upright, as RGB and alpha, with its metadata.

    ``source`` is the path of a file, a Pillow image, or a uint8 array (H, W), (H, W, 1), (H, W, 2) grey and alpha,
    (H, W, 3) or (H, W, 4). CMYK and Lab become sRGB through the embedded profile; RGB and grey keep their profile.
    ``deep``: PNG, TIFF and PPM files of 9 to 16 bits a channel, Pillow images of mode I;16 and uint16 arrays are read
    too, with uint16 values of 0 to 65535; all else has uint8 values.
    Raises ImageError for a file that is missing, damaged or no image, and for what so many bits and one frame cannot
    hold (animations, several pages); OutOfMemoryError for an image too large to decode.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, deep)
    if isinstance(source, Image.Image):
        return from_pillow(source, "the image", deep=deep)
    if isinstance(source, (str, os.PathLike)):
        with opened(Path(source)) as stream:
            return read_stream(stream, str(Path(source)), deep)
    wanted = f"a path, a PIL image or a uint8 {'or uint16 ' * deep}array"
    raise InputError(f"read_image: expected {wanted}, got {type(source).__name__}{_remedy(source)}")


def _remedy(source: object) -> str:
    """What makes a photograph of something else that people have."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "; PIL.Image.open(io.BytesIO(it)) opens the bytes of a file"
    if hasattr(source, "read"):
        return "; PIL.Image.open opens it"
    if hasattr(source, "__array__"):
        return "; a model is called with a tensor of floats, model(it), and takes what np.asarray(it) gives as an array"
    return ""


def _from_array(array: np.ndarray, deep: bool) -> Photo:
    if deep and array.dtype == np.dtype(np.uint16).newbyteorder():  # as files have it, of most significant byte first
        array = array.astype(np.uint16)
    if array.dtype != np.uint8 and not (deep and array.dtype == np.uint16):
        remedy = "scale it to 0..255, round, and convert with astype(np.uint8)"
        raise InputError(f"read_image: expected a uint8 {'or uint16 ' * deep}array, got {array.dtype}; {remedy}")
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] > 4):
        layouts = "(H, W), (H, W, 1), (H, W, 2), (H, W, 3) or (H, W, 4)"
        first = array.ndim == 3 and array.shape[0] in (3, 4) and array.size > 0
        remedy = "; channels come last, as array.transpose(1, 2, 0) has them" if first else ""
        raise InputError(f"read_image: expected a non-empty array of shape {layouts}, got {array.shape}{remedy}")
    if array.ndim == 3 and array.shape[2] == 3:
        return Photo(np.ascontiguousarray(array), shape=array.shape)  # as it is: Pillow would copy it twice
    flat = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype == np.uint16:
        photo = of_levels(flat if flat.ndim == 3 else flat[:, :, None], None, {}, [])
        photo.shape = array.shape
        return photo
    photo = from_pillow(Image.fromarray(np.ascontiguousarray(flat)), "the array")
    photo.shape = array.shape
    return photo


def read_stream(stream: BinaryIO, name: str, deep: bool = False) -> Photo:
    """``read_image`` of what a binary stream that can be sought in holds; ``name`` is what errors call it."""
    notes: list[str] = []
    if (found := own_tiff(stream, deep)) is not None:
        return of_tiff(stream, name, *found)
    try:
        return from_pillow(open_image(stream, name), name, notes, stream, deep=deep)
    except Damaged as problem:
        del notes[:]
        rest = mended(stream, problem.kind, notes)
        if rest is None:
            raise ImageError(str(problem)) from problem.__cause__
        try:
            return from_pillow(open_image(rest[0], name), name, notes, *rest, deep=deep)
        except Damaged:
            raise ImageError(str(problem)) from problem.__cause__


def from_pillow(
    image: Image.Image,
    name: str,
    notes: list[str] | None = None,
    stream: BinaryIO | None = None,
    rescued: Info | None = None,
    deep: bool = False,
) -> Photo:
    """``stream`` is the file that ``image`` was opened from, ``rescued`` metadata that were taken out of it."""
    notes = [] if notes is None else notes
    width, height = image.size
    if width == 0 or height == 0:
        raise ImageError(f"{name} is empty: {width}x{height} pixels")
    _refuse_frames(image, name, notes, stream is None)
    with nullcontext(stream) if stream is not None else file_of(image) as file:
        bits = bits_of(image, name, file)
        if bits > 8:
            refuse_deep(image, name, bits, deep, stream is None, file)
        there = stated_in_file(image, file, notes) | (rescued or {})
    _load(image, name, bits > 8)
    _note_extra_channels(image, notes)
    source_format, mode = ("JPEG" if image.format == "MPO" else image.format), image.mode
    info, orientation = read_metadata(image, notes, there)
    if bits > 8:
        levels = values_of(image, name, bits, stream)
        return of_levels(turned(levels, orientation), source_format, info, notes)
    turn = _TURN.get(orientation)
    try:
        plain, alpha, profile = _to_rgb(image, info.get("icc_profile"), notes)
    except MGAError:
        raise
    except Exception as problem:
        message = f"{name} of mode {mode} cannot be converted to RGB ({reason_of(problem)})"
        raise Damaged(message, image.format) from problem
    info.pop("icc_profile", None)
    if profile:
        info["icc_profile"] = profile
    if turn is not None:
        plain, alpha = plain.transpose(turn), alpha and alpha.transpose(turn)
    grey = plain.mode == "L"
    rgb = np.array(plain.convert("RGB"))
    if alpha is None:
        return Photo(rgb, None, grey, mode, source_format, None, info, notes)
    coverage = np.array(alpha)
    filled = bleed(rgb, coverage)
    hidden = None if filled is rgb else rgb
    return Photo(filled, coverage, grey, mode, source_format, None, info, notes, hidden)


def _load(image: Image.Image, name: str, deep: bool) -> None:
    """Decode, where there is memory for it."""
    width, height = image.size
    # Decoded (4 bytes), turned (4), RGB (3) and alpha (1); with transparency, three float planes for the edges.
    bytes_per_pixel = DEEP_BYTES if deep else 12 + (35 if image.has_transparency_data else 0)
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(322, 0) * tags.get(323, 0)  # a tile of a TIFF may be larger than its image
    pixels = max(width * height, tile)
    needed = pixels * bytes_per_pixel
    require_memory(needed, f"reading {name} ({width}x{height} pixels)", "crop it or use a machine with more memory")
    if hasattr(image, "tag_v2") and not isinstance(image.info.get("xmp", b""), bytes):
        del image.info["xmp"]  # of a type that Pillow fails with; it is taken from the file
    limit = Image.MAX_IMAGE_PIXELS  # at which only TIFF looks again
    try:
        with limit_off() if image.format == "TIFF" and limit is not None and pixels > limit else nullcontext():
            image.load()
    except MemoryError as problem:
        size = f"{needed / GIB:.1f} GiB"
        raise OutOfMemoryError(f"reading {name} ({width}x{height}) ran out of memory near {size}; crop it") from problem
    except Exception as problem:
        if needed := lacking(image):
            raise ImageError(f"{name} {needed}") from problem
        raise Damaged(f"{name} is damaged and cannot be read ({reason_of(problem)})", image.format) from problem


def _refuse_frames(image: Image.Image, name: str, notes: list[str], in_memory: bool) -> None:
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception as problem:
        raise Damaged(f"{name} is damaged and cannot be read ({reason_of(problem)})", image.format) from problem
    if frames > 1 and image.format == "MPO":  # a JPEG whose further pictures are previews
        notes.append(f"only its main picture was used, not the {frames - 1} smaller ones that its camera added")
    elif frames > 1:
        remedy = "pass a copy() of the one you want" if in_memory else EXTRACT
        remedy += "; `mga upscale` takes GIF, PNG, WebP, AVIF and TIFF whole" if not in_memory else ""
        raise ImageError(f"{name} holds {frames} frames or pages and only single images are upscaled; {remedy}")
    if image.info.get("depth_images") or image.info.get("aux"):  # of HEIF
        notes.append("pictures beside the main one, such as of depth or brightness, were left out")
    sizes = image.info.get("sizes", ()) if image.format == "ICO" else ()
    if len(sizes) > 1:
        notes.append(f"only its largest picture was used, not the {len(sizes) - 1} smaller ones")


def _note_extra_channels(image: Image.Image, notes: list[str]) -> None:
    if image.mode == "RGBX" or (hasattr(image, "tag_v2") and image.tag_v2.get(338) and image.mode in ("RGB", "CMYK")):
        notes.append(EXTRA_CHANNEL)


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
            notes.append(f"its CMYK profile cannot be used ({reason_of(problem)})")
    notes.append("converted from CMYK to sRGB without a profile, so colours are approximate")
    return image.convert("RGB")


def _srgb_profile() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
