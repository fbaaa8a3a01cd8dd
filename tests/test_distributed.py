"""Photographs upscaled by many workers: storages, the actor, and the job on a Ray cluster of two workers."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image

from mga.cli import main
from mga_kernels.distributed import Source, Upscaler, find, storage
from mga_kernels.distributed.job import Workers, _Pool, _shares, to_do
from mga_kernels.distributed.storages import inside
from mga_kernels.errors import ImageError, InputError


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: make test-cluster")


needs_arrow, needs_ray = needs("pyarrow"), needs("ray")


def picture(seed=0, height=6, width=8):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(seed=0):
    stream = io.BytesIO()
    picture(seed).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "deeper/a.png")):
        picture(number).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_of_folders_are_found(photos, tmp_path):
    assert [source.title for source in find([str(photos)])] == ["a.png", "b.jpg", "deeper/a.png"]
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(ImageError, match="there is no image in"):
            find([str(place)])


@needs_arrow
def test_tables_of_parquet_are_read_row_by_row(tmp_path, model_file):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    columns = {"name": ["a.png", "b.png", "c.png"], "bytes": [png(0), png(1), None]}
    parquet.write_table(arrow.table(columns), tmp_path / "photos.parquet", row_group_size=2)
    found = find([str(tmp_path / "photos.parquet")])
    assert found == find([str(tmp_path)])
    assert [(source.title, source.row) for source in found] == [
        ("a.png", (0, 0, "bytes")),
        ("b.png", (0, 1, "bytes")),
        ("c.png", (1, 0, "bytes")),
    ]
    rows = Upscaler(str(tmp_path / "out"), str(model_file)).upscale(found)
    assert [row["error"] for row in rows] == ["", "", "c.png: the column bytes of photos.parquet holds no bytes there"]
    assert (tmp_path / "out/b.png").read_bytes() == by_command(png(1), "b.png", tmp_path, model_file)
    with pytest.raises(InputError, match="has no column 'image'; its columns are name, bytes"):
        find([str(tmp_path)], bytes_column="image")


def by_command(data, name, tmp_path, model_file, *options):
    source, out = tmp_path / "command" / name, tmp_path / "command-out"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(data)
    assert main(["upscale", str(source), "-o", f"{out}/", "--model", str(model_file), "--overwrite", *options]) == 0
    return next(out.glob(f"{source.stem}.*")).read_bytes()


def animation():
    stream = io.BytesIO()
    picture(0).save(stream, "GIF", save_all=True, append_images=[picture(1)], duration=[40, 60])
    return stream.getvalue()


def turned():
    stream, exif = io.BytesIO(), Image.Exif()
    exif[274], exif[270] = 8, "otters"
    picture(0).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize(("name", "data"), [("a.gif", animation()), ("b.jpg", turned()), ("c.bmp.png", png())])
def test_a_row_becomes_what_the_command_writes(name, data, tmp_path, model_file):
    """As Ray Data calls it, with rows of read_binary_files."""
    upscaler = Upscaler(str(tmp_path / "out"), str(model_file))
    row = upscaler({"path": f"bucket/photos/{name}", "bytes": data})
    assert (row["error"], row["name"]) == ("", name)
    assert (tmp_path / "out" / row["result"]).read_bytes() == by_command(data, name, tmp_path, model_file)
    assert upscaler({"name": name, "bytes": b"not looked at"})["how"] == "it was there"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"name": "a.png", "bytes": b"no image"}, "a.png is not an image of a kind"),
        ({"name": "a.png", "bytes": png()[:90]}, "a.png is damaged"),
        ({"name": "../a.png", "bytes": png()}, "has no place below the output"),
        ({"name": "/etc/a.png", "bytes": png()}, "has no place below the output"),
        ({"bytes": png()}, "has no place below the output"),
        ({"name": "a.png"}, "a.png: failed unexpectedly (KeyError: 'bytes')"),
    ],
)
def test_a_row_that_fails_is_a_sentence(row, sentence, tmp_path, model_file):
    made = Upscaler(str(tmp_path / "out"), str(model_file))(row)
    assert sentence in made["error"]
    assert "\n" not in made["error"]
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_missing_is_in_the_row(tmp_path):
    row = Upscaler(str(tmp_path / "out"), "missing.pth")({"name": "a.png", "bytes": png()})
    assert "missing.pth" in row["error"]


def test_two_images_of_one_result_are_refused(tmp_path):
    sources = [Source("one", "a.png", "a.png"), Source("two", "a.bmp", "a.bmp")]
    with pytest.raises(InputError, match=r"one/a\.png and two/a\.bmp would both be written to a\.png"):
        to_do(sources, str(tmp_path))


def test_what_is_there_is_left(tmp_path):
    storage(str(tmp_path)).write("a.png", b"there")
    (tmp_path / "b.png").touch()
    sources = [Source("in", name, name) for name in ("a.png", "b.png", "c.png")]
    left, there = to_do(sources, str(tmp_path))
    assert ([source.name for source in left], there) == (["b.png", "c.png"], 1)


@pytest.mark.parametrize("output", ["photos", "photos/", "photos/./", "link"])
def test_results_do_not_go_where_images_are_read(output, photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    with pytest.raises(InputError, match="is where images are read"):
        to_do(find([str(photos)]), f"{tmp_path}/{output}")


def test_an_output_within_the_input_is_none_of_the_images(photos):
    names = [source.title for source in find([str(photos)])]
    for where in (photos / "large", photos / "deeper/large"):
        storage(str(where)).write("a.png", png())
    left, there = to_do(find([str(photos)]), str(photos / "large"))
    assert ([source.title for source in left], there) == (["b.jpg", "deeper/a.png", "deeper/large/a.png"], 1)
    assert names == ["a.png", "b.jpg", "deeper/a.png"]


@pytest.mark.parametrize(
    ("one", "other", "part"),
    [
        ("s3://bucket/photos", "s3://bucket/photos/large", "large"),
        ("s3://bucket/photos/", "s3://bucket/photos", ""),
        ("s3://bucket/photos", "s3://bucket/photos-large", None),
        ("s3://bucket/photos", "photos/large", None),
        ("/", "/tmp/large", "tmp/large"),
        ("photos", "photos-large", None),
    ],
)
def test_what_lies_within_a_place(one, other, part):
    assert inside(one, other) == part


@pytest.mark.parametrize(
    ("workers", "cluster", "expected"),
    [
        (Workers(), {"CPU": 8.0}, (4, 2.0, 0.0)),
        (Workers(), {"CPU": 1.0}, (1, 1.0, 0.0)),
        (Workers(cpus=1.0), {"CPU": 2.0}, (2, 1.0, 0.0)),
        (Workers(), {"CPU": 16.0, "GPU": 4.0}, (4, 1.0, 1.0)),
        (Workers(gpus=0.5), {"CPU": 16.0, "GPU": 1.0}, (2, 1.0, 0.5)),
        (Workers(3), {"CPU": 8.0}, (3, 2.0, 0.0)),
    ],
)
def test_how_many_workers_there_are(workers, cluster, expected):
    assert _shares(workers, cluster) == expected


@pytest.mark.parametrize("workers", [Workers(9), Workers(cpus=16.0), Workers(gpus=1.0)])
def test_more_than_there_is_room_for_is_refused(workers):
    with pytest.raises(InputError, match="cluster: "):
        _shares(workers, {"CPU": 8.0})


class Ended(Exception):
    pass


class RayOfOneProcess:
    """What the job asks of Ray, of workers that end with certain images; a batch is worked at when it is waited for."""

    class exceptions:
        RayActorError = Ended

    def __init__(self, deadly, after):
        self.deadly, self.after, self.given = deadly, after, Counter()

    def cluster_resources(self):
        return {"CPU": 4.0}

    def remote(self, **shares):
        def decorated(kind):
            return type("Remote", (), {"remote": staticmethod(lambda *a, **k: Worker(self, kind(*a, **k)))})

        return decorated

    def wait(self, refs, num_returns):
        return refs[:1], refs[1:]

    def get(self, ref):
        return ref()

    def kill(self, worker):
        pass


class Worker:
    def __init__(self, ray, upscaler):
        self.upscale = type("Method", (), {"remote": functools.partial(self._later, ray, upscaler)})

    def _later(self, ray, upscaler, batch):
        def work():
            for number, source in enumerate(batch):
                ray.given[source.title] += 1
                if source.title in ray.deadly:
                    upscaler.upscale(batch[: number + ray.after])
                    upscaler._output.write(f".mga-{ray.given[source.title]:016x}.part", b"half")
                    raise Ended("SIGKILL")
            return upscaler.upscale(batch)

        return work


@pytest.mark.parametrize("after", [0, 1])
def test_an_image_that_ends_workers_is_a_row_and_the_others_are_made(after, photos, tmp_path, model_file):
    """``after``: the worker ended when its result was written, so that it is there."""
    for number in range(20):
        picture(number).save(photos / f"{number}.png")
    sources, _ = to_do(find([str(photos)]), str(tmp_path / "out"))
    ray = RayOfOneProcess({"7.png"}, after)
    rows = list(_Pool(ray, Workers(), 99, str(tmp_path / "out"), {"model": str(model_file)}).rows(sources))
    assert Counter(row["name"] for row in rows) == Counter(source.title for source in sources)  # each once
    failed = [row for row in rows if row["error"]]
    if after:
        assert failed == []
    else:
        assert [row["error"].partition(",")[0] for row in failed] == ["7.png: 3 workers ended while it was theirs"]
        assert ray.given["7.png"] == 3
    assert all((tmp_path / "out" / row["result"]).is_file() for row in rows if not row["error"])
    assert not list((tmp_path / "out").glob(".mga-*"))  # what the workers were writing when they ended


def test_without_ray_it_says_what_to_install(photos, tmp_path, model_file, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert main(["cluster", str(photos), "-o", str(tmp_path / "out"), "--model", str(model_file)]) == 1
    assert "pip install 'mga_kernels[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "many"])
def test_a_number_of_workers_that_cannot_be(number, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["cluster", str(tmp_path), "-o", str(tmp_path / "out"), "--workers", number])
    assert f"workers are a whole number, 1 or more, got '{number}'" in capsys.readouterr().err


def workers_of(mark):
    """Processes of Ray's workers that upscale, of the cluster that was started with this in its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title, environment = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::Upscaler") and mark.encode() in environment:
            found.append(int(path.name))
    return found


@needs_ray
@pytest.mark.slow
def test_two_workers_one_killed(tmp_path, model_file):
    """200 images and one that is none; one of two workers is killed meanwhile, and the job is run again."""
    folder, out, mark = tmp_path / "photos", tmp_path / "out", f"MGA_TEST={tmp_path}"
    folder.mkdir()
    for number in range(200):
        picture(number).save(folder / f"{number:03}.png")
    (folder / "wrong.png").write_text("no image")
    words = ["cluster", folder, "-o", out, "--model", model_file, "--cpus", "1", "--workers", "2"]
    words += ["--failures", tmp_path / "failed.jsonl"]
    environment = {"MGA_TEST": str(tmp_path), "RAY_ADDRESS": "", "RAY_worker_niceness": "0"}  # workers are nice by 15
    process = commands.start(*words, environment=environment)
    try:
        end = time.monotonic() + 500
        while len(list(out.glob("*.png"))) < 10:
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        victims = workers_of(mark)
        assert len(victims) == 2
        os.kill(victims[0], signal.SIGKILL)
        assert len(list(out.glob("*.png"))) < 200
        said, errors = process.communicate(timeout=500)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1, errors
    assert f"200 of 201 images upscaled into {out}, 1 failed" in said
    assert sorted(path.name for path in out.iterdir()) == [f"{number:03}.png" for number in range(200)]
    (failed,) = map(json.loads, (tmp_path / "failed.jsonl").read_text().splitlines())
    assert failed["name"] == "wrong.png"
    assert "wrong.png is not an image" in failed["error"]
    for number in range(0, 200, 50):
        assert Image.open(out / f"{number:03}.png").size == (16, 12)
    when = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "007.png").unlink()
    (folder / "wrong.png").unlink()
    code, said, errors = commands.run(*words, environment=environment, timeout=500)
    assert (code, said) == (0, f"1 of 200 images upscaled into {out}, 199 were there\n"), errors
    assert all((out / name).stat().st_mtime_ns == time for name, time in when.items() if name != "007.png")
