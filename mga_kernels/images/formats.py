"""What each format can hold beside the pixels, as options of Pillow's writers; what it cannot hold becomes a note."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from PIL import Image, TiffTags
from PIL.PngImagePlugin import PngInfo

from .colour import icc_profile, stated
from .exif import to_tags, without_orientation
from .ifd import LONG, LONG8, RATIONAL, SHORT, UNDEFINED, Tags
from .info import Info, Options
from .tiff import IPTC, RESOLUTION_UNIT, X_RESOLUTION, XMP, Y_RESOLUTION

_JPEG_SEGMENT = 65533
_JPEG_PROFILE = 255 * (_JPEG_SEGMENT - 14)
_IPTC_RESOURCE = 0x0404
# What Pillow's writers raise on metadata that they cannot write.
REFUSALS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    struct.error,
)
_BESIDE = {"iptc": "IPTC captions", "text": "text chunks", "comment": "comment", "dpi": "resolution (dpi)"}
_TITLES = {"WEBP": "WebP", "JXL": "JPEG XL"}  # where Pillow's name is not the usual one
_NAMES = {
    "exif": "EXIF data",
    "xmp": "XMP data",
    "icc_profile": "ICC profile",
    "dpi": "resolution",
    "comment": "comment",
    "pnginfo": "text chunks and colour space",
    "text": "text chunks",
    "extra": "IPTC captions",
    "iptc": "IPTC captions",
}


def metadata_options(kind: str, image: Image.Image, info: Info, notes: list[str]) -> Options:
    """Options by which Pillow's writer of ``kind`` writes the metadata ``info`` with ``image``.

    EXIF, XMP and IPTC of TIFF are none of them: see ``tiff_tags``. ``notes`` get a sentence on each thing that is lost.
    """
    maker = _OPTIONS.get(kind)
    if maker is None:
        lost = [name for key, name in _NAMES.items() if info.get(key)]
        if lost:
            notes.append(f"{kind} is written without its {' and '.join(lost)}")
        return {}
    options = maker(info, notes)
    if kind not in ("PNG", "JXL"):
        options |= _profile(kind, image, info, notes)
    return _accepted(kind, image.mode, options, notes)


def _png(info: Info, notes: list[str]) -> Options:
    chunks = PngInfo()
    for kind, data in png_colour_chunks(info):
        chunks.add(kind, data)
    if "xmp" in info:
        chunks.add_itxt("XML:com.adobe.xmp", info["xmp"].decode("utf-8", "replace"))
    for key, value in info.get("text", {}).items():
        chunks.add_itxt(key, value, getattr(value, "lang", "") or "", getattr(value, "tkey", "") or "")
    if "comment" in info and "Comment" not in info.get("text", {}):
        comment = info["comment"]
        chunks.add_itxt("Comment", comment.decode("utf-8", "replace") if isinstance(comment, bytes) else comment)
    _note_lost(info, notes, "PNG", iptc="IPTC captions")
    options = {"pnginfo": chunks} if chunks.chunks else {}
    # Stored as pixels a metre, of 31 bits.
    return options | _common(info, "icc_profile", "exif") | _resolution("PNG", info, 0.0127, 0.0254 * 0x7FFFFFFE, notes)


def png_colour_chunks(info: Info) -> list[tuple[bytes, bytes]]:
    """cICP, gAMA, cHRM and sRGB of a PNG file as they were read; an ICC profile overrides the last three."""
    chunks = [(b"cICP", bytes(info["cicp"]))] if "cicp" in info and max(info["cicp"]) < 256 else []
    if "icc_profile" in info:
        return chunks
    if "gamma" in info:
        chunks.append((b"gAMA", struct.pack(">I", round(info["gamma"] * 100000))))
    if "chromaticity" in info:
        chunks.append((b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in info["chromaticity"]))))
    if "srgb" in info:
        chunks.append((b"sRGB", struct.pack("B", info["srgb"])))
    return chunks


def _jpeg(info: Info, notes: list[str]) -> Options:
    options = _common(info, "exif", "comment", "xmp")
    if isinstance(options.get("comment"), str):
        options["comment"] = options["comment"].encode()
    for key, name in (("exif", "EXIF data"), ("xmp", "XMP data"), ("comment", "comment")):
        if len(options.get(key, b"")) + (29 if key == "xmp" else 0) > _JPEG_SEGMENT:
            del options[key]
            notes.append(f"its {name} is too long for JPEG and was left out")
    segment = iptc_segment(info["iptc"]) if "iptc" in info else b""
    if segment:
        options["extra"] = segment
    elif "iptc" in info:
        notes.append("its IPTC captions are too long for JPEG and were left out")
    _note_lost(info, notes, "JPEG", text="text chunks")
    return options | _resolution("JPEG", info, 0.5, 0xFFFF, notes)


def iptc_segment(iptc: bytes) -> bytes:
    """IPTC captions as the JPEG segment (APP13) that holds them; empty where they are too long for one."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    body = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body if len(body) + 2 <= 0xFFFF else b""


def _webp(info: Info, notes: list[str]) -> Options:
    _note_lost(info, notes, "WebP", **_BESIDE)
    return _common(info, "exif", "xmp")


def _avif(info: Info, notes: list[str]) -> Options:
    _note_lost(info, notes, "AVIF", **_BESIDE)
    options = _common(info, "exif", "xmp")
    if "exif" in options:  # with the tag in it Pillow would write the block anew
        options["exif"] = without_orientation(options["exif"])
    return options


def _heif(info: Info, notes: list[str]) -> Options:
    _note_lost(info, notes, "HEIF", **_BESIDE)
    return _common(info, "exif", "xmp")


def _jxl(info: Info, notes: list[str]) -> Options:
    _note_lost(info, notes, "JPEG XL", **_BESIDE)
    space = stated(info)
    if "icc_profile" in info or (space is not None and not space.is_srgb):
        notes.append("Pillow's plug-in writes no colour space into JPEG XL, so its colours may look different")
    options = _common(info, "exif", "xmp")
    if "exif" in options:  # where it begins is a number before it
        options["exif"] = bytes(4) + options["exif"].removeprefix(b"Exif\0\0")
    return options


def _tiff(info: Info, notes: list[str]) -> Options:
    _note_lost(info, notes, "TIFF", text="text chunks", comment="comment")
    return _resolution("TIFF", info, 1 / 0xFFFFFFFF, 0xFFFFFFFF, notes)


def tiff_tags(info: Info, notes: list[str]) -> tuple[str, Tags]:
    """(byte order, EXIF, XMP and IPTC as the tags of a TIFF file)."""
    order, tags, damaged = to_tags(info["exif"]) if "exif" in info else ("<", {}, False)
    for tag, kind, length in ((X_RESOLUTION, RATIONAL, 8), (Y_RESOLUTION, RATIONAL, 8), (RESOLUTION_UNIT, SHORT, 2)):
        if tag in tags and (tags[tag][0] != kind or len(tags[tag][1]) != length):  # readers refuse the file
            damaged = tags.pop(tag) is not None
    if damaged:
        notes.append("some of its EXIF data is damaged and TIFF cannot hold it")
    if odd := [TiffTags.lookup(tag).name for tag, (kind, _) in sorted(tags.items()) if not _is_usual(tag, kind)]:
        notes.append(f"its EXIF has {' and '.join(odd)} in a type that readers of TIFF may not expect; it was kept")
    for tag, kind, key in ((XMP, 1, "xmp"), (IPTC, UNDEFINED, "iptc")):
        if key in info:
            tags[tag] = kind, info[key]
    return order, tags


def _is_usual(tag: int, kind: int) -> bool:
    """Whether a tag is stored as TIFF has it; numbers may be wider, and bytes of no stated meaning."""
    usual = TiffTags.lookup(tag).type or kind
    return any({kind, usual} <= alike for alike in ({kind}, {SHORT, LONG, LONG8}, {1, UNDEFINED}))


_OPTIONS: dict[str, Callable[[Info, list[str]], Options]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "WEBP": _webp,
    "TIFF": _tiff,
    "AVIF": _avif,
    "HEIF": _heif,
    "JXL": _jxl,
}


def _common(info: Info, *keys: str) -> Options:
    return {key: info[key] for key in keys if key in info}


def _resolution(kind: str, info: Info, least: float, most: float, notes: list[str]) -> Options:
    dpi = info.get("dpi")
    if dpi and not least <= min(dpi) <= max(dpi) <= most:
        notes.append(f"{kind} cannot hold its resolution of {dpi[0]:.6g} x {dpi[1]:.6g} dpi")
        return {}
    return {"dpi": dpi} if dpi else {}


def _profile(kind: str, image: Image.Image, info: Info, notes: list[str]) -> Options:
    """The ICC profile, made where the colour space was stated by numbers."""
    space, profile = stated(info), info.get("icc_profile")
    if space is not None and not space.is_srgb:
        made = icc_profile(space, image.mode in ("L", "LA"))
        title = _TITLES.get(kind, kind)
        if made is None:
            notes.append(f"{title} cannot hold its colour space ({space.name}), so its colours may look different")
        elif profile is None:
            notes.append(f"its colour space ({space.name}) was written as an ICC profile, as {title} can hold it")
        profile = profile or made
    if profile and kind == "JPEG" and len(profile) > _JPEG_PROFILE:
        notes.append("its ICC profile is too long for JPEG and was left out")
        profile = None
    return {"icc_profile": profile} if profile else {}


def _accepted(kind: str, mode: str, options: Options, notes: list[str]) -> Options:
    """The options that Pillow's writer takes, tried on a picture of one pixel; each that it refuses is noted."""
    if _takes(kind, mode, options):
        return options
    kept: Options = {}
    for key, value in options.items():
        if _takes(kind, mode, kept | {key: value}):
            kept[key] = value
        else:
            notes.append(f"{_TITLES.get(kind, kind)} cannot hold its {_NAMES[key]}, which may be damaged")
    return kept


def _takes(kind: str, mode: str, options: Options) -> bool:
    try:
        Image.new(mode, (1, 1)).save(io.BytesIO(), kind, **options)
    except (*REFUSALS, OSError):
        return False
    return True


def _note_lost(info: Info, notes: list[str], kind: str, **names: str) -> None:
    lost = [name for key, name in names.items() if info.get(key)]
    if lost:
        notes.append(f"{kind} cannot hold its {' and '.join(lost)}")
