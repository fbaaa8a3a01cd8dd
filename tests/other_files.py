"""Files of other kinds that people give as checkpoints, by name: what makes their content, and what must be said."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from hostile_files import archive, legacy, picture, safetensors, state, tensor, zipped
from PIL import Image
from safetensors.torch import save
from torch import nn

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345678\n"
PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body></body></html>"
NOISE = np.random.default_rng(0).bytes(2000)
WEB = r"a web page"
LFS = r"a git-lfs pointer to a file of 12,345,678 bytes, not the file; run `git lfs pull` in its repository"


@cache
def network() -> bytes:
    return zipped(state())


@cache
def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Conv2d(3, 4, 3)), buffer)
    return buffer.getvalue()


def exported() -> bytes:
    """The entries that torch.export.save writes, to make which takes long."""
    names = (
        "data/weights/weight_0 models/model.json data/sample_inputs/model.pt archive_version .data/version byteorder"
    )
    return archive({"net/archive_format": b"pt2"} | {f"net/{name}": b"x" for name in names.split()})


def tar(compression: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as new:
        entry = tarfile.TarInfo("net.pth")
        entry.size = len(network())
        new.addfile(entry, io.BytesIO(network()))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.ones(3), bias=np.ones(2))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 8, 7)).save(buffer, kind)
    return buffer.getvalue()


def field(number: int, content: bytes | int) -> bytes:
    """One of a message in protocol buffers."""

    def varint(value: int) -> bytes:
        groups = []
        while value > 127:
            groups.append(value & 127 | 128)
            value >>= 7
        return bytes([*groups, value])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx(version: int = 8, producer: bytes = b"pytorch", opset_first: bool = False) -> bytes:
    opset, graph = field(8, field(2, 17)), field(7, field(2, b"main_graph") + NOISE)
    named = field(2, producer) + field(3, b"2.13.0") if producer else b""
    return field(1, version) + named + (opset + graph if opset_first else graph + opset)


def frozen_graph() -> bytes:
    node = field(1, b"input") + field(2, b"Placeholder")
    return b"".join(field(1, node + field(5, bytes(40))) for _ in range(3)) + field(4, field(1, 27))


def names(*named: str) -> bytes:
    return save({name: torch.zeros(4, 4, 3, 3) for name in named})


KINDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "lfs pointer.pth": (lambda: POINTER, LFS),
    "lfs pointer of Windows.pth": (lambda: POINTER.replace(b"\n", b"\r\n"), LFS),
    "lfs pointer.safetensors": (lambda: POINTER, LFS),
    "lfs pointer with extension.pth": (lambda: POINTER.replace(b"oid", b"ext-0-x sha256:4d\noid"), LFS),
    "an older pointer.pth": (lambda: POINTER.replace(b"git-lfs.github", b"hawser.github"), LFS),
    "annex.pth": (lambda: b"/annex/objects/SHA256E-s123--4d.pth\n", "git-annex pointer.*git annex get"),
    "annex link.pth": (lambda: b"../.git/annex/objects/a/b/SHA256E-s123--4d.pth", "git-annex pointer"),
    "net.pth.dvc": (lambda: b"outs:\n- md5: 4d4d\n  size: 12\n  path: net.pth\n", "DVC pointer.*dvc pull"),
    "page.pth": (
        lambda: PAGE,
        WEB + r" \(\"Google Drive - Virus scan warning\"\), saved instead of the file; open its link",
    ),
    "page.safetensors": (lambda: PAGE, WEB),
    "page with a mark.pth": (lambda: b"\xef\xbb\xbf" + PAGE, WEB),
    "page after lines.pth": (lambda: b"\n\r\n  \t" + PAGE, WEB),
    "page in capitals.pth": (lambda: b"<HTML><TITLE>a\nb. c</TITLE>", WEB + r" \(\"a b; c\"\)"),
    "page in two bytes.pth": (lambda: "\ufeff".encode("utf-16-le") + PAGE.decode().encode("utf-16-le"), WEB),
    "page of XHTML.pth": (lambda: b'<?xml version="1.0"?><!DOCTYPE html><html xmlns="x"></html>', WEB),
    "page after a comment.pth": (lambda: b"<!-- saved --><html></html>", WEB),
    "page in Chinese.pth": (lambda: f"<html><title>{'百度网盘' * 3000}".encode(), WEB),
    "page in latin.pth": (lambda: b"<html><title>Acc\xe8s refus\xe9</title>", WEB + r" \(\"Accès refusé\"\)"),
    "a script of a page.pth": (lambda: b"<script>location.href='/login'</script>", WEB),
    "answer of a store.pth": (
        lambda: b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>NoSuchKey</Code></Error>',
        r"an XML text, \"NoSuchKey\", as servers answer",
    ),
    "answer of a server.pth": (
        lambda: b'{"message":"Not Found","documentation_url":"x"}',
        r"the answer of a server, \"Not Found\", saved instead of the file; download it again",
    ),
    "answer of another.ckpt": (
        lambda: b' {"error": "Repository is gated. Log in."}\n',
        "server, .Repository is gated; Log in",
    ),
    "index.safetensors": (
        lambda: json.dumps({"weight_map": {"a": "b"}}).encode(),
        "the index of a model .* several files",
    ),
    "config.json": (lambda: json.dumps({"architectures": ["x"]}).encode(), r"a text \(JSON\), not weights"),
    "a list of texts.pth": (lambda: b"[1, 2]", r"a text \(JSON\), not weights"),
    "error.pth": (lambda: b"Entry not found", r"a text, \"Entry not found\", not weights; give a file of weights"),
    "error 404.pth": (lambda: b"404: Not Found", "a text, .404: Not Found., not weights"),
    "error of one letter.pth": (lambda: b"Not Found\n", "a text, .Not Found., not weights"),
    "training.toml": (lambda: b'network = "rfdn"\nscale = 4\n', r"a configuration \(TOML\); `mga train`"),
    "training.yml": (lambda: b"name: PAN_x2\nscale: 2\n", r"a configuration \(YAML\), not weights"),
    "network.py": (lambda: b"import torch\n", "a Python program, not weights"),
    "README.md": (lambda: "# Größe\n".encode(), r"a text, \"# Größe\", not weights"),
    "empty.pth": (lambda: b"", "empty; download it again"),
    "zeros.pth": (lambda: bytes(5000), "nothing but zeros, as an interrupted download leaves"),
    "zip.pth": (
        lambda: archive({"weights/net_x2.pth": network(), "readme.txt": b"x"}, zipfile.ZIP_DEFLATED),
        r"a zip archive that holds weights/net_x2\.pth; unpack it and give that file",
    ),
    "zip of several.pth": (
        lambda: archive({"a.safetensors": b"x", "b.onnx": b"x", "c.txt": b"x"}),
        r"a zip archive that holds a\.safetensors and 1 more; unpack it",
    ),
    "zip of pictures.pth": (
        lambda: archive({"a.png": picture()}),
        r"a zip archive of other files \(a\.png\), not weights",
    ),
    "zip of nothing.pth": (lambda: archive({}), r"a zip archive of other files \(none\), not weights"),
    "zip that is cut off.pth": (lambda: archive({"a.png": picture()})[:-30], "incomplete or damaged zip archive"),
    "half a network.pth": (
        lambda: network()[: len(network()) // 2],
        r"incomplete .* file of PyTorch \(its end is missing\)",
    ),
    "a network without its end.pth": (
        lambda: network()[:-30],
        "incomplete or damaged file of PyTorch.*download it again",
    ),
    "half an old network.pth": (lambda: legacy(state())[:5000], "incomplete or damaged file of PyTorch"),
    "half a list.safetensors": (lambda: save(state())[:200], "cut off within its list of tensors.*download it again"),
    "half a network.safetensors": (
        lambda: safetensors({"a": tensor([100], 0, 400)}, bytes(100)),
        r"cut off: it has 173 of 473 bytes, so it is not complete; download it again",
    ),
    "half a network named otherwise.pth": (lambda: save(state())[:-1], r"cut off: it has [\d,]+ of [\d,]+ bytes"),
    "tar.pth": (tar, r"an archive \(tar\), not the file of weights itself; unpack it"),
    "net.pth.tar": (tar, r"an archive \(tar\)"),
    "tar in gzip.pth": (lambda: tar("gz"), r"an archive \(gzip\)"),
    "gzip.pth": (lambda: gzip.compress(network()), r"an archive \(gzip\)"),
    "bzip2.pth": (lambda: bz2.compress(network()), r"an archive \(bzip2\)"),
    "xz.pth": (lambda: lzma.compress(network()), r"an archive \(xz\)"),
    "zstd.pth": (lambda: b"\x28\xb5\x2f\xfd" + NOISE, r"an archive \(zstd\)"),
    "7z.pth": (lambda: b"7z\xbc\xaf\x27\x1c\x00\x04" + NOISE, r"an archive \(7z\).*unpack it"),
    "rar.pth": (lambda: b"Rar!\x1a\x07\x01\x00" + NOISE, r"an archive \(RAR\).*unpack it"),
    "script.pth": (script, r"a program of TorchScript, which is not executed; save its state_dict\(\)"),
    "script.pt": (script, "TorchScript"),
    "exported.pt2": (
        exported,
        r"an exported program \(torch\.export, \.pt2\), which is not run here; save its state_dict",
    ),
    "exported.pth": (exported, r"torch\.export"),
    "onnx.pth": (onnx, "an ONNX model, whatever its name ends with, which cannot be run here; give the PyTorch file"),
    "model.onnx": (onnx, "an ONNX model"),
    "onnx of another order.pth": (lambda: onnx(3, b"", opset_first=True), "an ONNX model"),
    "half an onnx.pth": (lambda: onnx()[:500], "an ONNX model"),
    "FSRCNN_x2.pb": (frozen_graph, r"a model of TensorFlow \(\.pb\), as OpenCV's dnn_superres takes"),
    "net.param": (
        lambda: b"7767517\n77 92\nInput input.1 0 1 data\n",
        r"a graph of ncnn that cannot be run: it says that it has 77 layers",
    ),
    "param.pth": (
        lambda: b"7767517\r\n77 92\r\n",
        r"a graph of ncnn that cannot be run: it says that it has 77 layers and has 0",
    ),
    "half precision.bin": (lambda: b"\x47\x6b\x30\x01" + NOISE, r"weights of ncnn \(\.bin\) without their graph; give"),
    "net.xml": (
        lambda: b'<?xml version="1.0"?><net name="x" version="11"><layers></layers></net>',
        "a model of OpenVINO",
    ),
    "keras.h5": (lambda: b"\x89HDF\r\n\x1a\n" + NOISE, r"a model of Keras or TensorFlow \(HDF5\)"),
    "keras.pth": (lambda: b"\x89HDF\r\n\x1a\n" + NOISE, "HDF5"),
    "model.keras": (lambda: archive({"config.json": b"{}", "model.weights.h5": b"x"}), "a model of Keras"),
    "model.tflite": (lambda: b"\x1c\x00\x00\x00TFL3" + NOISE, "a model of TensorFlow Lite"),
    "model.pte": (lambda: b"\x1c\x00\x00\x00ET12" + NOISE, "a model of ExecuTorch"),
    "arrays.npz": (npz, r"a collection of NumPy's arrays \(\.npz\)"),
    "arrays.pth": (npz, "NumPy's arrays"),
    "array.npy": (npy, "an array of NumPy"),
    "net.mat": (lambda: b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(100), "a model of MATLAB"),
    "png.pth": (picture, r"an image \(PNG\), not weights"),
    "jpeg.pth": (lambda: image("JPEG"), r"an image \(JPEG\)"),
    "gif.pth": (lambda: image("GIF"), r"an image \(GIF\)"),
    "webp.pth": (lambda: image("WEBP"), r"an image \(WebP\)"),
    "tiff.pth": (lambda: image("TIFF"), r"an image \(TIFF\)"),
    "bmp.pth": (lambda: image("BMP"), r"an image \(BMP\)"),
    "avif.pth": (lambda: b"\x00\x00\x00\x1cftypavif" + NOISE, r"an image \(AVIF\)"),
    "photo.jpg": (lambda: image("JPEG"), r"an image \(JPEG\), not weights; give a file of weights"),
    "video.pth": (lambda: b"\x00\x00\x00\x1cftypisom" + NOISE, "a video"),
    "paper.pth": (lambda: b"%PDF-1.5\n" + NOISE, "a PDF document"),
    "program.pth": (lambda: b"\x7fELF" + NOISE, "a program"),
    "model.gguf": (lambda: b"GGUF" + struct.pack("<I", 3) + NOISE, "a model in GGUF"),
    # Networks of other kinds, by the names of their tensors.
    "sd.safetensors": (
        lambda: names("model.diffusion_model.input_blocks.0.0.weight"),
        "Stable Diffusion, not a network for",
    ),
    "unet.safetensors": (lambda: names("down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"), "Stable Diffusion"),
    "flux.safetensors": (lambda: names("double_blocks.0.img_attn.qkv.weight"), "a diffusion transformer"),
    "vae.safetensors": (lambda: names("decoder.conv_in.weight", "decoder.conv_out.weight"), "an autoencoder"),
    "lora.safetensors": (lambda: names("lora_unet.a.lora_up.weight", "lora_unet.a.lora_down.weight"), "a LoRA"),
    "llama.safetensors": (lambda: names("model.layers.0.self_attn.q_proj.weight"), "a language model"),
    "bert.pth": (
        lambda: zipped({"bert.encoder.layer.0.attention.self.query.weight": torch.zeros(4, 4)}),
        "a language model",
    ),
    "net_d.pth": (
        lambda: zipped({"params": {"conv0_0.weight": torch.zeros(4, 3, 3, 3), "linear1.weight": torch.zeros(4, 4)}}),
        "a discriminator",
    ),
    "dat.pth": (lambda: names("before_RG.1.weight", "layers.0.blocks.0.norm1.weight"), "a file of DAT, which is not"),
    "rgt.pth": (
        lambda: names("before_RG.1.weight", "layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.gamma"),
        "a file of RGT, which is not",
    ),
    "swin2sr.pth": (
        lambda: names(
            "conv_first.weight",
            "patch_embed.proj.weight",
            *(f"layers.0.residual_group.blocks.0.{part}" for part in ("norm1.weight", "attn.logit_scale")),
        ),
        "a file of Swin2SR, which is not",
    ),
    "plksr.pth": (lambda: names("feats.0.weight", "feats.1.lk.conv.weight"), "PLKSR, which is not supported yet"),
    "wdsr.pth": (
        lambda: names("head.0.weight_v", "skip.0.weight_v", "skip.0.weight_g", "tail.0.weight_v"),
        "a file of WDSR, which is not supported yet",
    ),
    "mdsr.pth": (lambda: names("pre_process.0.0.body.0.weight", "head.0.weight", "tail.0.weight"), "a file of MDSR"),
    "rdn.pth": (lambda: names("SFENet1.weight", "RDBs.0.convs.0.conv.0.weight"), "a file of RDN, which is not"),
    "rlfn.pth": (lambda: names("conv_1.weight", "block_1.c1_r.weight", "block_1.esa.conv1.weight"), "a file of RLFN"),
    "vsr.pth": (
        lambda: names("spynet.basic_module.0.basic_module.0.weight"),
        "a network for videos, which is not supported yet",
    ),
    "unknown.pth": (
        lambda: names("head.weight", "feats.1.mix.weight"),
        r"of no network that is known: it has 2 tensors .*; in Python, spandrel may load it for from_checkpoint",
    ),
    "swinir.pth": (
        lambda: zipped(
            {
                "params": {
                    n: torch.zeros(3) for n in ("layers.0.residual_group.blocks.0.norm1.weight", "conv_first.weight")
                }
            }
        ),
        "SwinIR, which is not supported yet",
    ),
}
