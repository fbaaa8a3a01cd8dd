"""XMP tells the truth about the result: sizes are scaled, promises of what is not there are gone, with a note."""

import io
import time

import pytest
from exif_blocks import entry, exif_block
from pictures import picture
from PIL import Image

from mga_kernels.images import read_image, save_image
from mga_kernels.images.xmp import properties, resized

PANORAMA = {
    "FullPanoWidthPixels": 90,
    "FullPanoHeightPixels": 45,
    "CroppedAreaImageWidthPixels": 9,
    "CroppedAreaImageHeightPixels": 6,
    "CroppedAreaLeftPixels": 40,
    "CroppedAreaTopPixels": 20,
    "LargestValidInteriorRectLeft": 1,
    "LargestValidInteriorRectTop": 2,
    "LargestValidInteriorRectWidth": 7,
    "LargestValidInteriorRectHeight": 3,
    "InitialViewHeadingDegrees": 90,
}
GOOGLE = "http://ns.google.com/photos/1.0/"
SPACES = {
    "GPano": GOOGLE + "panorama/",
    "GCamera": GOOGLE + "camera/",
    "Container": GOOGLE + "container/",
    "Item": GOOGLE + "container/item/",
    "GDepth": GOOGLE + "depthmap/",
    "GImage": GOOGLE + "image/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "OpCamera": "http://ns.oplus.com/photos/1.0/camera/",
    "MiCamera": "http://ns.xiaomi.com/photos/1.0/camera/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
}
KEPT = '<dc:rights>© someone &lt;here&gt;</dc:rights><!-- GCamera:MotionPhoto="1" -->'


def packet(attributes="", elements="", spaces=SPACES):
    declared = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in spaces.items())
    description = f'<rdf:Description rdf:about="" {declared} {attributes}>{KEPT}{elements}</rdf:Description>'
    rdf = f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{description}</rdf:RDF>'
    text = f'<?xpacket begin="\ufeff" id="W5M0"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">{rdf}</x:xmpmeta>\n'
    return (text + '<?xpacket end="w"?>').encode()


def as_attributes(values, prefix):
    return " ".join(f'{prefix}:{name}="{value}"' for name, value in values.items())


def as_elements(values, prefix):
    return "".join(f"<{prefix}:{name}>{value}</{prefix}:{name}>" for name, value in values.items())


def photo_with(xmp, orientation=1):
    image = Image.fromarray(picture(6, 9))
    image.info["xmp"] = xmp
    if orientation != 1:
        image.info["exif"] = exif_block(entry(0x0112, 3, bytes([orientation, 0])))
    return read_image(image)


def larger(photo, factor=4):
    return photo.upscaled(photo.rgb.repeat(factor, 0).repeat(factor, 1))


def values(xmp):
    """(namespace, name) -> value of the properties that hold no others."""
    found = [each for each in properties(xmp) if b"<" not in each.value]
    return {(each.namespace.decode(), each.name.decode()): each.value.decode() for each in found}


@pytest.mark.parametrize("spelling", [as_attributes, as_elements])
@pytest.mark.parametrize("prefix", ["GPano", "p"])
@pytest.mark.parametrize("output", ["jpg", "png", "webp", "tiff"])
def test_measures_of_a_panorama_are_scaled(tmp_path, spelling, prefix, output):
    spaces = {key: uri for key, uri in SPACES.items() if key != "GPano"} | {prefix: SPACES["GPano"]}
    given = spelling(PANORAMA, prefix)
    xmp = packet(given, "", spaces) if spelling is as_attributes else packet("", given, spaces)
    photo = photo_with(xmp)
    assert photo.info["xmp"] == xmp
    assert photo.notes == []
    assert save_image(larger(photo), tmp_path / f"a.{output}") == []
    found = values(read_image(tmp_path / f"a.{output}").info["xmp"])
    for name, value in PANORAMA.items():
        factor = 1 if name.endswith("Degrees") else 4
        assert found[SPACES["GPano"], name] == str(factor * value)


@pytest.mark.parametrize(
    "spelt",
    [
        "<GPano:FullPanoWidthPixels><!-- 5 -->90</GPano:FullPanoWidthPixels>",
        "<GPano:FullPanoWidthPixels><![CDATA[90]]></GPano:FullPanoWidthPixels>",
        "<GPano:FullPanoWidthPixels>&#57;&#x30;</GPano:FullPanoWidthPixels>",
        '<GPano:FullPanoWidthPixels rdf:parseType="Resource"><rdf:value>90</rdf:value></GPano:FullPanoWidthPixels>',
        '<FullPanoWidthPixels xmlns="http://ns.google.com/photos/1.0/panorama/">90</FullPanoWidthPixels>',
    ],
)
def test_measures_in_other_spellings_are_scaled(spelt):
    xmp = larger(photo_with(packet("", spelt))).info["xmp"]
    assert values(xmp)[SPACES["GPano"], "FullPanoWidthPixels"] == "360"
    assert KEPT.encode() in xmp


@pytest.mark.parametrize("spelling", [as_attributes, as_elements])
def test_other_records_of_the_size_are_brought_up_to_date(spelling):
    sizes = (
        spelling({"ImageWidth": 9, "ImageLength": 6}, "tiff"),
        spelling({"PixelXDimension": 9, "PixelYDimension": 6}, "exif"),
    )
    regions = (
        '<mwg-rs:Regions><mwg-rs:AppliedToDimensions stDim:w="9" stDim:h="6" stDim:unit="pixel"/></mwg-rs:Regions>'
    )
    other = '<tiff:Other stDim:w="5"/>'
    xmp = (
        packet(" ".join(sizes), regions + other)
        if spelling is as_attributes
        else packet("", "".join(sizes) + regions + other)
    )
    result = larger(photo_with(xmp)).info["xmp"]
    expected = xmp
    for before, after in (
        (b"ImageWidth", 36),
        (b"ImageLength", 24),
        (b"PixelXDimension", 36),
        (b"PixelYDimension", 24),
    ):
        for start, end in ((b'="', b'"'), (b">", b"<")):
            for old in (b"9", b"6"):
                expected = expected.replace(before + start + old + end, before + start + b"%d" % after + end)
    expected = expected.replace(b'stDim:w="9" stDim:h="6"', b'stDim:w="36" stDim:h="24"')
    assert result == expected


MOTION = as_attributes({"MotionPhoto": 1, "MotionPhotoVersion": 1, "MotionPhotoPresentationTimestampUs": 5}, "GCamera")
MICRO = as_attributes({"MicroVideo": 1, "MicroVideoVersion": 1, "MicroVideoOffset": 3000}, "GCamera")
DIRECTORY = (
    '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="image/jpeg" '
    'Item:Semantic="Primary" Item:Length="0"/></rdf:li><rdf:li rdf:parseType="Resource"><Container:Item '
    'Item:Mime="video/mp4" Item:Semantic="MotionPhoto" Item:Length="3000"/></rdf:li></rdf:Seq></Container:Directory>'
)
PROMISES = {
    "motion photo": (MOTION, "", "a video"),
    "motion photo as elements": ("", as_elements({"MotionPhoto": 1, "MotionPhotoVersion": 1}, "GCamera"), "a video"),
    "micro video": (MICRO, "", "a video"),
    "directory": ("", DIRECTORY, "pictures or a video beside it"),
    "motion and directory": (MOTION, DIRECTORY, "a video and pictures or a video beside it"),
    "video of another maker": (as_attributes({"OLivePhotoVersion": 2, "VideoLength": 3000}, "OpCamera"), "", "a video"),
    "pictures of another maker": ('MiCamera:XMPMeta="&lt;depthmap/>"', "", "pictures or a video beside it"),
    "gain map of another maker": (as_attributes({"HDRGainMapVersion": 65536}, "HDRGainMap"), "", "a gain map"),
    "gain map": (as_attributes({"Version": "1.0", "GainMapMax": 2.3}, "hdrgm"), "", "a gain map"),
    "depth": (as_attributes({"Format": "RangeInverse", "Mime": "image/png"}, "GDepth"), "", "a depth map"),
    "extended": (
        'xmpNote:HasExtendedXMP="0123"',
        "<GImage:Mime>image/jpeg</GImage:Mime>",
        "a second part of the XMP data",
    ),
}


LYING = {
    "MP:RegionInfo": "marked regions",
    "Iptc4xmpExt:ImageRegion": "marked regions",
    "xmp:Thumbnails": "thumbnails",
}


@pytest.mark.parametrize("name", PROMISES)
@pytest.mark.parametrize("source", ["jpg", "png", "pillow"])
def test_promises_of_what_is_not_there_are_gone_with_a_note(tmp_path, name, source):
    attributes, elements, what = PROMISES[name]
    title = "<dc:title>Otter</dc:title>"
    xmp = packet(attributes, elements + title)
    if source == "pillow":
        photo = photo_with(xmp)
    else:
        image = Image.fromarray(picture(6, 9))
        image.info["xmp"] = xmp
        save_image(image, tmp_path / f"in.{source}")
        with (tmp_path / f"in.{source}").open("ab") as stream:
            stream.write(b"\0\0\0\x18ftypmp42" + bytes(3000))
        photo = read_image(tmp_path / f"in.{source}")
    (note,) = photo.notes
    assert note.startswith(f"what its XMP data says of {what}")
    assert values(photo.info["xmp"]) == values(packet("", title))
    assert KEPT.encode() in photo.info["xmp"]


def test_depth_that_stands_in_the_packet_itself_stays():
    xmp = packet(as_attributes({"Mime": "image/png", "Data": "aGFsbG8="}, "GDepth"))
    photo = photo_with(xmp)
    assert (photo.info["xmp"], photo.notes) == (xmp, [])


def test_what_holds_for_the_lying_picture_goes_when_it_is_turned():
    area = '<mwg-rs:RegionList><rdf:Bag><rdf:li><mwg-rs:Area stArea:x="0.5"/></rdf:li></rdf:Bag></mwg-rs:RegionList>'
    xmp = packet(as_attributes(PANORAMA, "GPano"), f"<mwg-rs:Regions>{area}</mwg-rs:Regions>")
    assert photo_with(xmp).info["xmp"] == xmp
    photo = photo_with(xmp, orientation=6)
    assert ["turned upright" in note for note in photo.notes] == [True]
    assert values(photo.info["xmp"]) == values(packet())


@pytest.mark.parametrize(("name", "what"), LYING.items())
def test_other_marks_on_the_lying_picture_go_when_it_is_turned(name, what):
    xmp = packet("", f"<{name}><rdf:Bag><rdf:li>somewhere</rdf:li></rdf:Bag></{name}>")
    assert photo_with(xmp).info["xmp"] == xmp
    photo = photo_with(xmp, orientation=6)
    assert photo.notes == [f"what its XMP data says of its {what} was removed, because the picture was turned upright"]
    assert values(photo.info["xmp"]) == values(packet())


@pytest.mark.parametrize(
    "xmp",
    [
        b"",
        b"no XML at all",
        b"<x:xmpmeta><unclosed GPano:FullPanoWidthPixels='9'>",
        b"<a></b>",
        b"<a b='c' b",
        b"<!-- never ends",
        packet('GPano:FullPanoWidthPixels="many" tiff:ImageWidth="?"'),
        packet('GPano:FullPanoWidthPixels="1e999"'),
        packet()[:-30],
    ],
)
def test_packets_that_are_damaged_stay_as_they_are(xmp):
    photo = photo_with(xmp)
    result = larger(photo)
    assert result.rgb.shape == (24, 36, 3)
    if b"ImageWidth" not in xmp and xmp:
        assert result.info["xmp"] == xmp.replace(b"FullPanoWidthPixels='9'", b"FullPanoWidthPixels='36'")


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-16-be with mark"])
def test_packets_in_other_encodings(tmp_path, codec):
    text = (
        packet('tiff:Orientation="1" tiff:ImageWidth="9"')
        .decode()
        .removeprefix('<?xpacket begin="\ufeff" id="W5M0"?>\n')
    )
    data = b"\xfe\xff" + text.encode("utf-16-be") if codec.endswith("mark") else text.encode(codec)
    Image.fromarray(picture(6, 9)).save(tmp_path / "a.tiff", tiffinfo={700: data})
    photo = larger(read_image(tmp_path / "a.tiff"))
    assert photo.info["xmp"].decode() == text.replace('ImageWidth="9"', 'ImageWidth="36"')


def test_hostile_packets_take_no_time():
    started = time.process_time()
    for xmp in (
        b"<!--" * 50000,
        b"<a " * 50000,
        b"<a b='" * 50000,
        b"<a>" * 50000,
        b"<a" + b" b='c'" * 20000,
        b"<" * 50000,
        packet("", "<GPano:FullPanoWidthPixels>" + "<![CDATA[]]>" * 5000 + "</GPano:FullPanoWidthPixels>"),
    ):
        list(properties(xmp))
        resized(xmp, 36, 24, 4, 4)
    assert time.process_time() - started < 5


def test_an_image_in_memory_with_a_packet_of_text():
    image = Image.open(io.BytesIO(b"P6 1 1 255 abc"))
    image.info["xmp"] = packet(MOTION).decode()
    assert values(read_image(image).info["xmp"]) == values(packet())
