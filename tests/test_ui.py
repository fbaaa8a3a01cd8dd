"""``mga ui`` over HTTP: what it makes, what it refuses, to whom it listens, and what is left of it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import time
import urllib.parse
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageCms
from tiny_model import write_tiny_model
from ui_page import found, served

from mga.cli import main

for package in ("starlette", "uvicorn"):
    pytest.importorskip(package, reason="the page needs it: pip install 'mga_kernels[ui]'")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(model_file, temporary):
    with served("--model", model_file, "--max-megabytes", "2", "--max-megapixels", "1", folder=temporary) as page:
        yield page


@pytest.fixture
def page(server):
    page = server.opened()
    yield page
    page.ask("leave", b"")


def noise(height=24, width=32, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def turned_jpeg(path):
    exif = Image.Exif()
    exif[274], exif[270] = 6, "otters"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise()).save(path, exif=exif, icc_profile=profile, quality=90)


def deep_png(path):
    Image.fromarray(np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85).save(path)


def moving(path):
    frames = [Image.fromarray(noise(12, 16, seed=i)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[50, 70, 90], loop=2)


PHOTOGRAPHS = {
    "turned.jpg": turned_jpeg,
    "deep.png": deep_png,
    "alpha.png": lambda path: Image.fromarray(noise(channels=4)).save(path),
    "grey.tiff": lambda path: Image.fromarray(noise()[:, :, 0]).save(path),
    "moving.gif": moving,
    "point.png": lambda path: Image.fromarray(noise(1, 1)).save(path),
    "no suffix": lambda path: Image.fromarray(noise()).save(path, "PNG"),
}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("options", [(), ("--scale=1.5", "--format", "webp")], ids=["usual", "webp"])
def test_the_file_is_what_the_command_writes(name, options, page, model_file, tmp_path):
    if name == "deep.png":
        pytest.importorskip("imagecodecs")
    source = tmp_path / name
    PHOTOGRAPHS[name](source)
    expected = tmp_path / "out"
    code = main(["upscale", str(source), "-o", f"{expected}/", "--model", str(model_file), *options])
    task = page.upscale(source, "--model", model_file, *options, mask=True)
    if code:
        assert task["state"] == "failed"
        return
    assert task["state"] == "done", task
    (made,) = expected.iterdir()
    assert task["file"] == made.name
    assert page.ask("result", id=task["id"]) == made.read_bytes()
    assert task["seconds"] > 0
    assert Image.open(io.BytesIO(page.ask("shown", id=task["picture"]))).size
    assert Image.open(io.BytesIO(page.ask("shown", id=task["id"]))).width == task["size"][0]


def test_the_mask_of_a_masked_network(page, model_file, tmp_path):
    turned_jpeg(tmp_path / "a.jpg")
    task = page.upscale(tmp_path / "a.jpg", "--model", model_file, mask=True)
    assert task["how"] == "K = 3"
    picture = Image.open(io.BytesIO(page.ask("mask", id=task["id"])))
    assert picture.width == 48
    assert picture.height > 64  # a legend is below it
    for options, mask in (((), False), (("--quality", "whole"), True), (("--scale=0.5",), True)):
        other = page.upscale(tmp_path / "a.jpg", "--model", model_file, *options, mask=mask)
        assert (other["state"], other["mask"]) == ("done", False)
        with pytest.raises(AssertionError, match="has no picture of refined cells"):
            page.ask("mask", id=other["id"])


def test_what_is_shown_is_upright_and_of_a_kind_that_browsers_know(page, model_file, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise()).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(noise()).save(tmp_path / "a.tiff")
    for name, size in (("turned.png", (24, 32)), ("a.tiff", (32, 24))):
        shown = Image.open(io.BytesIO(page.ask("shown", id=page.send(tmp_path / name))))
        assert (shown.format, shown.size) == ("PNG", size)


def test_many_files_as_a_zip(page, model_file, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(noise()).save(tmp_path / name)
    Image.fromarray(noise(seed=1)).save(tmp_path / "A.jpg")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    sent = [page.send(tmp_path / name) for name in ("a.png", "A.jpg", "b.png")]
    sent.append(page.send(tmp_path / "c.png"))
    ids = page.start(sent, "--model", model_file, "--format", "png")
    tasks = page.finished(ids)
    assert [task["state"] for task in tasks] == ["done", "done", "done", "failed"]
    archive = zipfile.ZipFile(io.BytesIO(page.ask("zip", ids=",".join(ids))))
    assert archive.namelist() == ["a.png", "A (2).png", "b.png", "failures.txt"]
    assert archive.read("b.png") == page.ask("result", id=ids[2])
    assert archive.read("failures.txt").decode().startswith("c.png is damaged")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.txt", b"no image at all", "notes.txt is not an image of a kind that can be read here"),
        ("empty.png", b"", "empty.png is empty (0 bytes)"),
        ("../../photo.jpg", b"\xff\xd8\xff\xe0nothing", "photo.jpg is damaged"),
        ("large.png", b"x" * 2_000_001, "large.png is larger than the 2 MB that this page takes"),
    ],
)
def test_a_wrong_file_is_a_sentence(name, content, sentence, page, tmp_path, temporary):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(AssertionError, match=re.escape(sentence)) as refusal:
        page.send(tmp_path / "file", name)
    assert str(temporary) not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).count(name.split("/")[-1]) == 1
    assert not found(temporary, name.split("/")[-1])


def test_a_file_without_a_length_ends_at_the_limit(server, page, temporary):
    host = urllib.parse.urlsplit(server.address)
    with socket.create_connection((host.hostname, host.port), timeout=30) as stream:
        head = f"POST /picture?visit={page.visit}&name=endless.png HTTP/1.1\r\nHost: {host.netloc}\r\n"
        stream.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        stream.sendall(b"".join(b"186a0\r\n" + bytes(100_000) + b"\r\n" for _ in range(21)))
        answer = b""
        while b"endless.png is larger than the 2 MB" not in answer:
            answer += (part := stream.recv(65536))
            assert part, answer
    assert not found(temporary, "endless.png")


def test_a_file_that_stops_coming_leaves_nothing(server, page, temporary):
    host = urllib.parse.urlsplit(server.address)
    with socket.create_connection((host.hostname, host.port), timeout=30) as stream:
        head = f"POST /picture?visit={page.visit}&name=half.png HTTP/1.1\r\nHost: {host.netloc}\r\n"
        stream.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + bytes(50_000))
        wait_until(lambda: found(temporary, "half.png"))
    wait_until(lambda: not found(temporary, "half.png"))


def test_too_many_pixels(page, model_file, tmp_path):
    Image.fromarray(np.zeros((1001, 1000, 3), np.uint8)).save(tmp_path / "large.png")
    Image.fromarray(np.zeros((600, 600, 3), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(AssertionError, match="1000x1001 pixels, 1 million, and this page goes up to 1; choose"):
        page.send(tmp_path / "large.png")
    task = page.upscale(tmp_path / "small.png", "--model", model_file)
    assert task["error"].startswith("the result of small.png has 1200x1200 pixels")
    assert page.upscale(tmp_path / "small.png", "--model", model_file, "--scale=1.5")["state"] == "done"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--width=100"], "is 3.125 times 32x24, and the model enlarges 2 times"),
        (["--scale=3"], "is for x2, not for --scale 3"),
        (["--quality", "high"], "has no quality 'high'"),
        (["--quality=5", "--format", "png"], "--quality has no meaning for PNG"),
    ],
)
def test_what_the_model_cannot_is_a_sentence(options, sentence, page, model_file, tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    task = page.upscale(tmp_path / "a.png", "--model", model_file, *options)
    assert task["state"] == "failed"
    assert sentence in task["error"]
    assert "Traceback" not in task["error"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "None is none of the models"),
        (["--scale=0"], "the scale is a number above 0"),
        (["--size=big"], "size"),
        (["--width=4", "--scale=2"], "each say how large"),
        (["--quality=101"], "whole number from 1 to 100"),
        (["-o", "/tmp/elsewhere.png"], "a page cannot ask for -o"),
        (["--from=/etc/passwd"], "a page cannot ask for --from"),
        (["--save-mask", "x"], "a page cannot ask for --save-mask"),
        (["/etc/hostname"], "unrecognized arguments: /etc/hostname"),
        (["--", "/etc/hostname"], "a page cannot ask for --"),
    ],
)
def test_wrong_options_are_a_sentence(options, sentence, page, model_file, tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    with pytest.raises(AssertionError, match=re.escape(sentence)):
        page.upscale(tmp_path / "a.png", *(["--model", model_file] if options else []), *options)
    assert page.tasks() == {}


def test_a_file_of_a_network_by_its_path(server, page, tmp_path):
    other = write_tiny_model(tmp_path / "other.safetensors", scale=3)
    found = json.loads(page.ask("model", path=str(other)))
    assert (found["model"], found["scale"], found["masked"], found["qualities"]) == (str(other), 3, True, ["whole"])
    (tmp_path / "notes.txt").write_text("no network")
    with pytest.raises(AssertionError, match=r"notes\.txt"):
        page.ask("model", path=str(tmp_path / "notes.txt"))
    Image.fromarray(noise()).save(tmp_path / "a.png")
    assert page.upscale(tmp_path / "a.png", "--model", other)["size"] == [96, 72]


def test_two_visits_know_nothing_of_each_other(server, model_file, tmp_path):
    Image.fromarray(noise(240, 320)).save(tmp_path / "large.png")
    Image.fromarray(noise()).save(tmp_path / "a.png")
    one, other = server.opened(), server.opened()
    ids = one.start([one.send(tmp_path / "large.png") for _ in range(20)], "--model", model_file)
    task = other.upscale(tmp_path / "a.png", "--model", model_file)
    states = [one.tasks()[id]["state"] for id in ids]
    assert task["state"] == "done"
    assert "waiting" in states  # it was the other's turn
    assert set(other.tasks()) == {task["id"]}
    for path in ("result", "shown"):
        with pytest.raises(AssertionError, match="there is no such result"):
            one.ask(path, id=task["id"])
    with pytest.raises(AssertionError, match="no picture to upscale"):
        other.start(["x"], "--model", model_file)
    one.ask("leave", b"")
    other.ask("leave", b"")
    with pytest.raises(AssertionError, match="load it anew"):
        one.tasks()


def test_a_closed_page_leaves_no_files_and_no_work(server, model_file, tmp_path, temporary):
    Image.fromarray(noise(240, 320)).save(tmp_path / "a.png")
    page = server.opened()
    page.start([page.send(tmp_path / "a.png") for _ in range(6)], "--model", model_file)
    wait_until(lambda: any(task["state"] == "working" for task in page.tasks().values()))
    page.ask("leave", b"")
    other = server.opened()
    assert other.upscale(tmp_path / "a.png", "--model", model_file)["state"] == "done"
    other.ask("leave", b"")
    wait_until(lambda: not found(temporary, "a.png"))


def test_other_pages_and_other_names_are_refused(server, page):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        with pytest.raises(AssertionError, match=r"this page is not|another page"):
            page.ask("visit", b"", headers)
    port = urllib.parse.urlsplit(server.address).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        page.ask("visit", b"", {"Host": host, "Origin": f"http://{host}"})


def test_it_listens_on_this_machine_only(server):
    port = urllib.parse.urlsplit(server.address).port
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    if os.path.exists("/proc/net/tcp"):
        listening = [
            line.split()[1]
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            if os.path.exists(table)
            for line in open(table)
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        ]
        assert listening == [f"0100007F:{port:04X}"]
        with pytest.raises(ConnectionRefusedError):  # another address of the machine, which 0.0.0.0 would answer
            socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_it_does_not_listen_to_others_unless_asked(host, capsys):
    assert main(["ui", "--host", host, "--port", "0"]) == 1
    assert "open to other machines" in capsys.readouterr().err


def test_wrong_hosts_and_ports(server, capsys):
    port = urllib.parse.urlsplit(server.address).port
    assert main(["ui", "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 is in use" in said
    assert "Traceback" not in said
    assert main(["ui", "--host", "no such host", "--port", "0"]) == 1
    assert "--host no such host is no address" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["ui", "--port", "70000"])
    assert "a port is a number up to 65535" in capsys.readouterr().err
    assert main(["ui", "--model", "missing.pth", "--port", "0"]) == 1
    assert "missing.pth" in capsys.readouterr().err
    assert main(["ui", "--device", "toaster", "--port", str(port)]) == 1
    assert "device 'toaster' cannot be used here" in capsys.readouterr().err


def test_without_its_packages_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    assert main(["ui", "--port", "0"]) == 1
    assert "pip install 'mga_kernels[ui]'" in capsys.readouterr().err


@pytest.mark.slow
def test_its_files_go_with_it(tmp_path, model_file):
    """After SIGTERM at once, after SIGKILL when the next one starts; that one is open to others, as is asked."""
    temporary, source = tmp_path / "tmp", tmp_path / "a.png"
    temporary.mkdir()
    Image.fromarray(noise(120, 160)).save(source)
    with served("--model", model_file, folder=temporary) as server:
        page = server.opened()
        page.send(source)
        server.process.kill()
        server.process.wait()
    (left,) = temporary.iterdir()
    with served("--host", "0.0.0.0", "--allow-others", folder=temporary) as server:
        assert not left.exists()
        assert len(list(temporary.iterdir())) == 1
        page = server.opened()
        check_open_to_others(page, source, model_file)
        page.start([page.send(source) for _ in range(4)], "--model", "fsrcnn-x2")
        wait_until(lambda: any(task["state"] == "working" for task in page.tasks().values()))
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=60)
    assert server.process.returncode == 143
    assert "Traceback" not in errors
    assert list(temporary.iterdir()) == []


def check_open_to_others(page, source, model_file):
    assert page.offer["paths"] is False
    page.ask("visit", b"", {"Host": "machine.example:7860"})
    with pytest.raises(AssertionError, match="offers its own models only"):
        page.ask("model", path=str(model_file))
    with pytest.raises(AssertionError, match="none of the models that this page offers"):
        page.upscale(source, "--model", model_file)


def wait_until(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)
