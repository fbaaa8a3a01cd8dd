"""What a file is that is given for weights and holds none that can be read: named by its bytes, with a remedy.

At most the first HEAD bytes of a file are read and the directory of an archive; nothing is unpacked or executed.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from ..system.texts import AGAIN, HEAD, shown, stand_in, text_of

UNPACK = "unpack it and give the file of weights inside"
OTHER = "give a file of weights: .pth, .pt, .ckpt or .safetensors"
STATE = "save its state_dict() as a .pth where it was made"
PYTHON = "give the PyTorch file that it was made from"

ARCHIVE = f"an archive ({{}}), not the file of weights itself; {UNPACK}"
IMAGE = f"an image ({{}}), not weights; {OTHER}"
FRAMEWORK = f"a model of {{}}, which cannot be run here; {PYTHON}"

GRAPH = f"a graph of ncnn (.param), which holds no tensors; {OTHER}, or run it whole, with the .bin beside it"
WITHOUT_GRAPH = "weights of ncnn (.bin) without their graph; give the .param, with the .bin beside it"

MAGIC: tuple[tuple[int, bytes, str], ...] = (  # where, what, what it means
    (0, b"\x1f\x8b", ARCHIVE.format("gzip")),
    (0, b"BZh", ARCHIVE.format("bzip2")),
    (0, b"\xfd7zXZ\x00", ARCHIVE.format("xz")),
    (0, b"\x28\xb5\x2f\xfd", ARCHIVE.format("zstd")),
    (0, b"\x04\x22\x4d\x18", ARCHIVE.format("lz4")),
    (0, b"7z\xbc\xaf\x27\x1c", ARCHIVE.format("7z")),
    (0, b"Rar!\x1a\x07", ARCHIVE.format("RAR")),
    (257, b"ustar", ARCHIVE.format("tar")),
    (0, b"\x89PNG\r\n\x1a\n", IMAGE.format("PNG")),
    (0, b"\xff\xd8\xff", IMAGE.format("JPEG")),
    (0, b"GIF8", IMAGE.format("GIF")),
    (0, b"II*\x00", IMAGE.format("TIFF")),
    (0, b"MM\x00*", IMAGE.format("TIFF")),
    (0, b"II+\x00", IMAGE.format("TIFF")),
    (0, b"\x00\x00\x00\x0cJXL ", IMAGE.format("JPEG XL")),
    (0, b"\xff\x0a", IMAGE.format("JPEG XL")),
    (0, b"8BPS", IMAGE.format("Photoshop")),
    (4, b"ftypavif", IMAGE.format("AVIF")),
    (4, b"ftyphei", IMAGE.format("HEIF")),
    (4, b"ftyp", f"a video, not weights; {OTHER}"),
    (0, b"%PDF", f"a PDF document, not weights; {OTHER}"),
    (0, b"\x7fELF", f"a program, not weights; {OTHER}"),
    (0, b"MZ\x90", f"a program, not weights; {OTHER}"),
    (0, b"\x89HDF\r\n\x1a\n", FRAMEWORK.format("Keras or TensorFlow (HDF5)")),
    (4, b"TFL3", FRAMEWORK.format("TensorFlow Lite")),
    (0, b"\x93NUMPY", f"an array of NumPy, not the tensors of a network by name; {STATE}"),
    (0, b"MATLAB 5.0 MAT-file", FRAMEWORK.format("MATLAB")),
    (0, b"GGUF", f"a model in GGUF, as language models are; {OTHER}"),
    (0, b"ggml", f"a model in GGML, as language models are; {OTHER}"),
    (0, b"lmgg", f"a model in GGML, as language models are; {OTHER}"),
    (0, b"7767517\n", GRAPH),
    (0, b"7767517\r", GRAPH),
    (0, b"\x47\x6b\x30\x01", WITHOUT_GRAPH),
)
WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors")
LIKE_WEIGHTS = (*WEIGHTS, ".bin", ".pkl", ".onnx", ".h5", ".param", ".tar", ".zip")
END_RECORD, LOCATOR, ZIP64_RECORD = 22, 20, 56  # bytes at the end of a zip archive
LARGEST_DIRECTORY = 8 << 20  # bytes: more than a hundred thousand files
TEXTS = {
    ".toml": "a configuration (TOML); `mga train` takes those of a training, `mga evaluate` those of a suite",
    ".py": f"a Python program, not weights; {OTHER}",
    ".yaml": f"a configuration (YAML), not weights; {OTHER}",
    ".yml": f"a configuration (YAML), not weights; {OTHER}",
}
SERVER = ("error", "message", "detail", "errors", "msg", "reason", "statuscode")  # in the JSON of a server that refuses


def kind_of(path: Path) -> str | None:
    """What follows "is", in one sentence with the remedy; None for what may be weights, or cannot be told.

    OSError where the file cannot be read.
    """
    if path.is_dir():
        return _folder(path)
    if path.exists() and not path.is_file():
        return f"no regular file; {OTHER}"
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if not head:
        return f"empty; {AGAIN}"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(path, head)
    if head[4:9] == bytes(4) + b"{":  # safetensors; the length before it may look like anything
        return None
    for at, magic, meaning in MAGIC:
        if head.startswith(magic, at):
            return meaning
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return IMAGE.format("WebP")
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return FRAMEWORK.format("ExecuTorch")
    if head[:2] == b"BM" and int.from_bytes(head[2:6], "little") == size:
        return IMAGE.format("BMP")
    if not head.strip(b"\x00"):
        return f"nothing but zeros, as an interrupted download leaves; {AGAIN}"
    return _known_text(head) or _protobuf(path, size)


def is_ncnn(path: Path) -> bool:
    """Whether this is there and a graph of ncnn."""
    try:
        with path.open("rb") as stream:
            return stream.read(7) == b"7767517"
    except OSError:
        return False


def text_kind(path: Path) -> str | None:
    """``kind_of`` for a file that could not be read and is a text after all; an old pickle is one, too."""
    with path.open("rb") as stream:
        text = text_of(stream.read(HEAD))
    if text is None or not text.strip():
        return None
    lines = text.strip().splitlines()
    return TEXTS.get(path.suffix.lower(), f'a text, "{shown(lines[0])}", not weights; {OTHER}')


def _folder(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if "data.pkl" in names or (len(names) == 1 and (path / names[0] / "data.pkl").is_file()):
        return f"a folder, an unpacked file of PyTorch; {AGAIN}, and keep it as it is: browsers unpack such files"
    if "model_index.json" in names or "saved_model.pb" in names:
        what = "diffusion model" if "model_index.json" in names else "model of TensorFlow"
        return f"a folder with a {what}; {OTHER}"
    files = [name for name in names if name.lower().endswith(WEIGHTS)]
    return f"a folder; give a file of weights{f', such as {shown(files[0])} in it' if files else ''}"


def _known_text(head: bytes) -> str | None:
    """Texts that cannot be the beginning of weights, not even of an old pickle."""
    if (what := stand_in(head)) is not None:
        return what
    text = text_of(head)
    if not text:
        return None
    if text[0] == "<":
        return _markup(text)
    return _json(text) if text[0] in "{[" else None


def _markup(text: str) -> str:
    start = text[:2000].lower()
    if re.search(r"<net\s[^>]*name=", start) and "<layers" in text:
        return FRAMEWORK.format("OpenVINO (.xml)")
    if "<svg" in start:
        return IMAGE.format("SVG")
    reason = re.search(r"<(?:message|code)>([^<]{1,200})<", text, re.IGNORECASE)
    what = f', "{shown(reason[1])}"' if reason else ""
    return f"an XML text{what}, as servers answer when they refuse a download, not weights; {AGAIN}"


def _json(text: str) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        said = next((content[key] for key in content if key.lower() in SERVER), None)
        if said is not None:
            return f'the answer of a server, "{shown(str(said))}", saved instead of the file; {AGAIN}'
    if '"weight_map"' in text:
        return f"the index of a model that lies in several files; {OTHER}"
    return f"a text (JSON), not weights; {OTHER}"


def _zip(path: Path, head: bytes) -> str | None:
    """Of an archive, None for one of PyTorch. One that cannot be read lacks its end, where the directory is."""
    if _directory_bytes(path) > LARGEST_DIRECTORY:
        return f"an archive of very many files, as no checkpoint is; {OTHER}"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        what = "file of PyTorch" if b"/data.pkl" in head[:600] or b"/data/0" in head[:600] else "zip archive"
        return f"an incomplete or damaged {what} (its end is missing), as an interrupted download leaves; {AGAIN}"
    except Exception:  # whatever else a damaged archive leads to
        return f"a damaged zip archive; {AGAIN}"
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if "data.pkl" in ends:
        script = "constants.pkl" in ends or any("/code/" in name for name in names)
        return f"a program of TorchScript, which is not executed; {STATE}" if script else None
    if "archive_format" in ends or "serialized_exported_program.json" in ends:
        return f"an exported program (torch.export, .pt2), which is not run here; {STATE}"
    if "model.weights.h5" in ends:
        return FRAMEWORK.format("Keras (.keras)")
    if names and all(name.endswith(".npy") for name in names):
        return f"a collection of NumPy's arrays (.npz), not of PyTorch's tensors; {STATE}"
    inside = [name for name in names if name.lower().endswith(LIKE_WEIGHTS)]
    if inside:
        more = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
        return f"a zip archive that holds {shown(inside[0])}{more}; unpack it and give that file"
    files = [name for name in names if not name.endswith("/")]
    return f"a zip archive of other files ({shown(', '.join(files[:3])) or 'none'}), not weights; {OTHER}"


def _directory_bytes(path: Path) -> int:
    """How long the directory of a zip archive says that it is, which is read as a whole to know what is in it."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - (1 << 16) - END_RECORD - LOCATOR - ZIP64_RECORD))
        tail = stream.read()
    end = len(tail) - END_RECORD
    if not (tail.startswith(b"PK\x05\x06", max(end, 0)) and tail.endswith(b"\x00\x00")):  # there is a comment
        end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        return 0
    start = end - LOCATOR - ZIP64_RECORD
    if start >= 0 and tail.startswith(b"PK\x06\x07", end - LOCATOR) and tail.startswith(b"PK\x06\x06", start):
        return int.from_bytes(tail[start + 40 : start + 48], "little")
    return int.from_bytes(tail[end + 12 : end + 16], "little")


def _protobuf(path: Path, size: int) -> str | None:
    """Models in protocol buffers, told by which fields follow each other; their contents are skipped."""
    fields = _fields(path, size)
    numbers = {number for number, _ in fields}
    if {(7, 2)} <= set(fields) and numbers <= ONNX and ({(1, 0)} <= set(fields) or {(8, 2)} <= set(fields)):
        return f"an ONNX model, whatever its name ends with, which cannot be run here; {PYTHON}"
    if fields[:1] == [(1, 2)] and numbers <= {1, 2, 3, 4} and len(fields) > 2 and path.suffix.lower() == ".pb":
        return FRAMEWORK.format("TensorFlow (.pb), as OpenCV's dnn_superres takes")
    if fields and path.suffix.lower() == ".onnx":
        return f"a damaged ONNX model; {AGAIN}, or better the PyTorch file that it was made from"
    return None


ONNX = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}  # fields of its ModelProto
MOST_FIELDS = 64


def _fields(path: Path, size: int) -> list[tuple[int, int]]:
    """(number, wire type) of the first fields of a message; none where it is none. The last may be cut off."""
    fields: list[tuple[int, int]] = []
    with path.open("rb") as stream:
        position = 0
        while position < size and len(fields) < MOST_FIELDS:
            stream.seek(position)
            chunk = stream.read(20)
            tag, used = _varint(chunk, 0)
            number, wire = tag >> 3, tag & 7
            value, end = _varint(chunk, used)
            if used == 0 or number == 0 or wire not in (0, 2) or end == 0:
                return []
            fields.append((number, wire))
            position += end + (value if wire == 2 else 0)
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """(value, position behind it) of a number in groups of seven bits; (0, 0) where there is none."""
    value = 0
    for shift in range(10):
        if position + shift >= len(data):
            return 0, 0
        byte = data[position + shift]
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, position + shift + 1
    return 0, 0
