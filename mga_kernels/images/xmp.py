"""XMP packets: what would be wrong in the result is changed or cut out, and every other byte stays as it is.

Properties are found in both spellings, as attributes and as elements, by the namespaces that their prefixes stand for.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_TAG = re.compile(
    rb"<(?P<close>/?)(?P<name>[^\s/<>=!?]+)"
    rb"(?P<attributes>(?:\s+[^\s=<>/]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*)\s*(?P<empty>/?)>"
)
_ATTRIBUTE = re.compile(rb"\s+([^\s=<>/]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
# What may stand around the text of a value: comments, CDATA and elements such as rdf:value.
_WITHIN = re.compile(rb"<!--.*?-->|<!\[CDATA\[|\]\]>|<[^<>]*>", re.DOTALL)
_LONGEST_NUMBER = 500
_DEEPEST = 100  # elements within each other; packets have a tenth of it
_NO_TAGS = ((b"<!--", b"-->"), (b"<![CDATA[", b"]]>"), (b"<?", b"?>"), (b"<!", b">"))
# Where Pillow finds the orientation, in whatever the packet is otherwise.
_PILLOWS_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[0-9]')

_GOOGLE = b"http://ns.google.com/photos/"
TIFF, EXIF, GPANO = b"http://ns.adobe.com/tiff/1.0/", b"http://ns.adobe.com/exif/1.0/", _GOOGLE + b"1.0/panorama/"
CONTAINER, GAIN_MAP = _GOOGLE + b"1.0/container/", b"http://ns.adobe.com/hdr-gain-map/1.0/"
NOTE, REGIONS = b"http://ns.adobe.com/xmp/note/", b"http://www.metadataworkinggroup.com/schemas/regions/"
XAP, DIMENSIONS = b"http://ns.adobe.com/xap/1.0/", b"http://ns.adobe.com/xap/1.0/sType/Dimensions#"
# What prefixes stand for in packets that do not say it.
_USUAL = {
    b"tiff": TIFF,
    b"exif": EXIF,
    b"GPano": GPANO,
    b"Container": CONTAINER,
    b"GContainer": CONTAINER,
    b"hdrgm": GAIN_MAP,
    b"xmpNote": NOTE,
    b"mwg-rs": REGIONS,
    b"stDim": DIMENSIONS,
    b"xmp": XAP,
}
# Namespaces of what stands in the file beside the picture and its metadata, which no result holds.
_BESIDE = {
    CONTAINER: "pictures or a video beside it",
    GAIN_MAP: "a gain map (HDR)",
    NOTE: "a second part of the XMP data",
    _GOOGLE + b"dd/1.0/device/": "a depth map",
    _GOOGLE + b"1.0/depthmap/": "a depth map",
    _GOOGLE + b"1.0/image/": "another picture",
    _GOOGLE + b"1.0/audio/": "a sound",
    b"http://ns.apple.com/HDRGainMap/1.0/": "a gain map (HDR)",
    b"http://ns.oplus.com/photos/1.0/camera/": "a video",
    b"http://ns.xiaomi.com/photos/1.0/camera/": "pictures or a video beside it",
}
# What holds for the picture as it lies.
_LYING = {
    (REGIONS, b"Regions"): "marked regions",
    (b"http://ns.microsoft.com/photo/1.2/", b"RegionInfo"): "marked regions",
    (b"http://iptc.org/std/Iptc4xmpExt/2008-02-29/", b"ImageRegion"): "marked regions",
    (XAP, b"Thumbnails"): "thumbnails",
}
_WIDTHS = frozenset(((TIFF, b"ImageWidth"), (EXIF, b"PixelXDimension")))
_HEIGHTS = frozenset(((TIFF, b"ImageLength"), (EXIF, b"PixelYDimension")))
_ACROSS = re.compile(rb"(FullPano|CroppedAreaImage|LargestValidInteriorRect)Width\w*|\w+Left\w*")
_DOWN = re.compile(rb"(FullPano|CroppedAreaImage|LargestValidInteriorRect)Height\w*|\w+Top\w*")


@dataclass(frozen=True)
class Property:
    """One property: ``whole`` is where it stands (to be cut out), ``content`` where its value does.

    ``inside``: the names of the elements that it stands in, without their prefixes.
    """

    namespace: bytes
    name: bytes
    value: bytes
    whole: tuple[int, int]
    content: tuple[int, int]
    inside: tuple[bytes, ...]


@dataclass
class _Element:
    name: bytes
    namespaces: dict[bytes, bytes]
    start: int
    content: int


def properties(xmp: bytes) -> Iterator[Property]:
    """The properties of a packet, those of an element before the element itself; up to where it is no longer XML."""
    stack: list[_Element] = []
    for tag in _tags(xmp):
        if tag["close"]:
            if not stack or stack[-1].name != tag["name"]:
                return
            element = stack.pop()
            yield _of_element(xmp, element, tag.start(), tag.end(), stack)
            continue
        if len(stack) >= _DEEPEST:
            return
        outer = stack[-1].namespaces if stack else _USUAL
        attributes = list(_ATTRIBUTE.finditer(xmp, tag.start("attributes"), tag.end("attributes")))
        own = {m[1][6:]: _value(m)[0] for m in attributes if m[1].startswith(b"xmlns:") or m[1] == b"xmlns"}
        element = _Element(tag["name"], outer | own, tag.start(), tag.end())
        inside = *(_local(e.name) for e in stack), _local(element.name)
        for match in attributes:
            prefix, _, name = match[1].rpartition(b":")
            if prefix and prefix != b"xmlns":
                value, content = _value(match)
                namespace = element.namespaces.get(prefix, prefix)
                yield Property(namespace, name, value, match.span(), content, inside)
        if tag["empty"]:
            yield _of_element(xmp, element, tag.end(), tag.end(), stack)
        else:
            stack.append(element)


def _tags(xmp: bytes) -> Iterator[re.Match[bytes]]:
    at = xmp.find(b"<")
    while at >= 0:
        end = next((end for start, end in _NO_TAGS if xmp.startswith(start, at)), None)
        if end is None:
            tag = _TAG.match(xmp, at)
            if tag is None:
                return
            yield tag
            behind = tag.end()
        else:
            behind = xmp.find(end, at)
            if behind < 0:
                return
        at = xmp.find(b"<", behind)


def _of_element(xmp: bytes, element: _Element, end: int, behind: int, stack: list[_Element]) -> Property:
    prefix, _, name = element.name.rpartition(b":")
    namespace = element.namespaces.get(prefix, prefix)
    content = element.content, end
    inside = tuple(_local(outer.name) for outer in stack)
    return Property(namespace, name, xmp[slice(*content)].strip(), (element.start, behind), content, inside)


def _value(attribute: re.Match[bytes]) -> tuple[bytes, tuple[int, int]]:
    group = 2 if attribute[2] is not None else 3
    return attribute[group], attribute.span(group)


def _local(name: bytes) -> bytes:
    return name.rpartition(b":")[2]


def orientation(xmp: bytes) -> int | None:
    """The orientation that a packet states, 1..8; None where it states none."""
    for found in properties(xmp):
        if (found.namespace, found.name) == (TIFF, b"Orientation") and re.fullmatch(rb"\s*[1-8]\s*", found.value):
            return int(found.value)
    pillows = _PILLOWS_ORIENTATION.search(xmp)
    value = int(pillows[0][-1:]) if pillows else 0
    return value if 1 <= value <= 8 else None


def alone(xmp: bytes, turned: bool) -> tuple[bytes, list[str]]:
    """The packet of a picture that stands upright and alone in its file, and notes on what was taken out.

    Its orientation becomes 1. What it says about a video, a gain map and the like beside the picture is cut out, and
    where the picture was ``turned``, what holds for the picture as it lay: a panorama's measures and marked regions.
    """
    found = list(properties(xmp))
    complete = {each.namespace for each in found if each.name == b"Data"}  # these stand in the packet itself
    beside: list[str] = []
    lying: list[str] = []

    def decide(each: Property) -> bytes | None:
        if (each.namespace, each.name) == (TIFF, b"Orientation"):
            return b"1"
        if each.name.startswith((b"MotionPhoto", b"MicroVideo")):
            beside.append("a video")
        elif each.namespace in _BESIDE and each.namespace not in complete:
            beside.append(_BESIDE[each.namespace])
        elif turned and (each.namespace == GPANO or (each.namespace, each.name) in _LYING):
            lying.append("panorama" if each.namespace == GPANO else _LYING[each.namespace, each.name])
        else:
            return None
        return CUT

    result = _edited(xmp, found, decide)
    notes = []
    if beside:
        what = " and ".join(dict.fromkeys(beside))
        notes.append(f"what its XMP data says of {what} was removed, because the result does not hold that")
    if lying:
        what = " and ".join(dict.fromkeys(lying))
        notes.append(f"what its XMP data says of its {what} was removed, because the picture was turned upright")
    return _PILLOWS_ORIENTATION.sub(rb"\g<1>1", result), notes


def resized(xmp: bytes, width: int, height: int, across: float, down: float) -> bytes:
    """The packet of a picture that is now ``width`` x ``height``, ``across`` and ``down`` times what it was."""

    def decide(each: Property) -> bytes | None:
        key = each.namespace, each.name
        if key in _WIDTHS or key in _HEIGHTS:
            return b"%d" % (width if key in _WIDTHS else height)
        if each.namespace == GPANO:
            factor = across if _ACROSS.fullmatch(each.name) else down if _DOWN.fullmatch(each.name) else None
        elif each.namespace == DIMENSIONS and b"AppliedToDimensions" in each.inside:
            factor = {b"w": across, b"h": down}.get(each.name)
        else:
            factor = None
        return None if factor is None else _times(each.value, factor)

    return _edited(xmp, list(properties(xmp)), decide)


def goes_round(xmp: bytes) -> bool:
    """Whether the picture is a panorama of 360 degrees, whose left and right edges meet (GPano)."""
    known = {each.name: each.value.strip() for each in properties(xmp) if each.namespace == GPANO}
    whole, part = known.get(b"FullPanoWidthPixels"), known.get(b"CroppedAreaImageWidthPixels")
    panorama = known.get(b"ProjectionType") in (b"equirectangular", b"cylindrical")
    return panorama and (whole == part or None in (whole, part))


CUT = b"\0cut"  # no XML holds a zero


def _times(value: bytes, factor: float) -> bytes | None:
    """A number, as attribute, as text with comments or within elements, times ``factor``; None where it is none."""
    text = _WITHIN.sub(b"", value if len(value) < _LONGEST_NUMBER else b"").decode("utf-8", "replace")
    try:
        return b"%d" % round(float(html.unescape(text)) * factor)
    except (ValueError, OverflowError):
        return None


def _edited(xmp: bytes, found: list[Property], decide: Callable[[Property], bytes | None]) -> bytes:
    """The packet with what ``decide`` says of each property: its new value, CUT, or None to leave it."""
    edits = []
    for each in found:
        value = decide(each)
        if value is not None:
            edits.append((*(each.whole if value == CUT else each.content), b"" if value == CUT else value))
    parts, behind = [], 0
    for start, end, value in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if start >= behind:  # or it stands in what was cut out
            parts += [xmp[behind:start], value]
            behind = end
    return b"".join([*parts, xmp[behind:]])
