import threading
import time

import numpy as np
import pytest
import torch

from mga_kernels import _native

host = _native.host()


def images(generator_seed=0, height=7, width=11):
    """One uint8 picture under different strides."""
    image = np.random.default_rng(generator_seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with_alpha = np.dstack([image, np.full((height, width), 9, np.uint8)])
    return {
        "contiguous": image,
        "of four channels": with_alpha[..., :3],
        "planar": np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0),
        "flipped": image[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    }


def reflected(length, padded):
    """Positions of an axis mirrored again and again, by walking back and forth."""
    positions, at, step = [], 0, 1
    for _ in range(padded):
        positions.append(at)
        if length > 1 and not 0 <= at + step < length:
            step = -step
        at += step if length > 1 else 0
    return positions


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
@pytest.mark.parametrize("padded", [(7, 11), (8, 12), (16, 16), (40, 50)])
def test_pack(scale, padded):
    for name, image in images().items():
        out = np.full((3, *padded), np.nan, np.float32)
        host.pack_image(image, out, scale)
        rows, columns = reflected(7, padded[0]), reflected(11, padded[1])
        wanted = (image[rows][:, columns].astype(np.float64) * scale).astype(np.float32).transpose(2, 0, 1)
        np.testing.assert_array_equal(out, wanted, err_msg=name)


def test_pack_pads_like_torch():
    image = images()["contiguous"]
    out = np.full((3, 12, 16), np.nan, np.float32)
    host.pack_image(image, out, 1.0)
    plain = torch.from_numpy(image).permute(2, 0, 1).float()
    assert torch.equal(torch.from_numpy(out), torch.nn.functional.pad(plain, (0, 5, 0, 5), mode="reflect"))


def test_pack_a_single_pixel():
    out = np.full((3, 4, 8), np.nan, np.float32)
    host.pack_image(np.array([[[1, 2, 3]]], np.uint8), out, 1.0)
    assert (out == np.array([1, 2, 3], np.float32)[:, None, None]).all()


def test_pack_by_255_equals_division_for_every_value():
    image = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    out = np.full((3, 16, 16), np.nan, np.float32)
    host.pack_image(image, out, 1 / 255)
    assert torch.equal(torch.from_numpy(out), torch.from_numpy(image).permute(2, 0, 1).float() / 255)


def test_pack_into_strided_planes():
    image = images()["contiguous"]
    whole = np.full((7, 22, 3), 99, np.float32)
    host.pack_image(image, whole[:, ::2].transpose(2, 0, 1), 1.0)
    np.testing.assert_array_equal(whole[:, ::2], image)
    assert (whole[:, 1::2] == 99).all()


def special_values():
    halves = np.arange(-3, 260, dtype=np.float32) + np.float32(0.5)
    near = np.concatenate([np.nextafter(halves, np.float32(-1e9)), np.nextafter(halves, np.float32(1e9))])
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-40, 1e30, -1e30, 254.99998, 255.5], np.float32)
    values = np.concatenate([halves, near, odd, np.random.default_rng(1).uniform(-20, 280, 600).astype(np.float32)])
    return np.resize(values, (3, 24, 24))


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_unpack_rounds_like_torch(scale):
    planes = special_values()
    if scale != 1.0:
        planes = planes / np.float32(scale)
    wanted = (torch.from_numpy(planes) * scale).round().nan_to_num(0.0).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    for height, width in ((24, 24), (23, 7), (1, 1)):
        out = np.full((height, width, 3), 77, np.uint8)
        host.unpack_image(planes, out, scale)
        np.testing.assert_array_equal(out, wanted[:height, :width].numpy())


def test_unpack_from_and_to_strides():
    planes = special_values()
    wanted = np.empty((24, 24, 3), np.uint8)
    host.unpack_image(planes, wanted, 1.0)
    interleaved = np.ascontiguousarray(planes.transpose(1, 2, 0)).transpose(2, 0, 1)
    whole = np.full((24, 48, 4), 77, np.uint8)
    host.unpack_image(interleaved, whole[:, ::2, :3], 1.0)
    np.testing.assert_array_equal(whole[:, ::2, :3], wanted)
    assert (whole[..., 3] == 77).all()
    assert (whole[:, 1::2] == 77).all()


def test_round_trip_is_exact():
    image = images(3, 61, 83)["contiguous"]
    planes = np.empty((3, 64, 84), np.float32)
    host.pack_image(image, planes, 1 / 255)
    out = np.zeros_like(image)
    host.unpack_image(planes, out, 255.0)
    np.testing.assert_array_equal(out, image)


def test_other_threads_run_meanwhile():
    planes = np.zeros((3, 4000, 4000), np.float32)
    out = np.empty((4000, 4000, 3), np.uint8)
    worker = threading.Thread(target=lambda: [host.unpack_image(planes, out, 1.0) for _ in range(4)])
    ticks = 0
    started = time.perf_counter()
    worker.start()
    while worker.is_alive():
        time.sleep(0.001)
        ticks += 1
    # With the lock held by the worker this thread would wake up about once per call.
    assert ticks > 12, (ticks, time.perf_counter() - started)


IMAGE, PLANES = np.zeros((4, 6, 3), np.uint8), np.zeros((3, 8, 8), np.float32)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("pack_image", (IMAGE.astype(np.float32), PLANES), r"image must be uint8 \(H, W, 3\), got float32 \(4, 6, 3\)"),
        ("pack_image", (IMAGE[..., 0], PLANES), r"image must be uint8 \(H, W, 3\), got uint8 \(4, 6\)"),
        ("pack_image", (IMAGE[..., :2], PLANES), r"image must be \(H, W, 3\)"),
        ("pack_image", (IMAGE, PLANES.astype(np.float64)), "out must be float32"),
        ("pack_image", (IMAGE, PLANES[:, :3]), "must hold the non-empty image"),
        ("pack_image", (IMAGE[:0], PLANES), "must hold the non-empty image"),
        ("pack_image", (IMAGE, read_only(PLANES)), "out is read-only"),
        ("unpack_image", (PLANES.astype(np.float16), IMAGE), "planes must be float32"),
        ("unpack_image", (PLANES[:2], IMAGE), r"planes must be \(3, H', W'\)"),
        ("unpack_image", (PLANES[:, :3], IMAGE), "do not cover out"),
        ("unpack_image", (PLANES, read_only(IMAGE)), "out is read-only"),
        ("unpack_image", (PLANES, IMAGE.astype(np.int8)), r"out must be uint8 \(H, W, 3\), got int8"),
    ],
)
def test_errors(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(host, function)(*arguments, 1.0)


def test_cpu_features_agree_with_the_kernel():
    features = host.cpu_features()
    assert features
    assert all(isinstance(value, bool) for value in features.values())
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split(":")[1].split() for line in file if line.startswith("flags")), None)
    except FileNotFoundError:
        flags = None
    if flags is None:
        pytest.skip("no flags in /proc/cpuinfo")
    for name in ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"):
        assert features[name] == (name in flags), name
