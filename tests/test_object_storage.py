"""Images in S3: read, written and resumed there, against a server of its protocol on this machine."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import time

import commands
import pytest
from PIL import Image
from test_distributed import needs_ray, png, workers_of

from mga.cli import main
from mga_kernels.distributed import Upscaler, find, storage
from mga_kernels.distributed.job import to_do, upscale
from mga_kernels.distributed.storages import inside
from mga_kernels.errors import ImageError, InputError

pytest.importorskip("pyarrow", reason="pyarrow is not installed: make test-cluster")
server = pytest.importorskip("moto.server", reason="there is no S3 server: make test-cluster")
boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: make test-cluster")
KINDS = ["s3", "s3a"]  # of which pyarrow has the first itself, and fsspec the other by s3fs


@pytest.fixture(scope="module")
def running():
    """The server's address, which the environment names as tools of S3 expect it."""
    there = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    there.start()
    host, port = there.get_host_and_port()
    named = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in named.items():
            patch.setenv(name, value)
        yield named["AWS_ENDPOINT_URL"]
    there.stop()


@pytest.fixture
def bucket(running, request):
    """An empty one, and what it holds: names and bytes, but not the empty objects that stand for folders."""
    client = boto3.client("s3")
    name = "".join(
        letter for letter in request.node.name.lower().replace("_", "-") if letter.isalnum() or letter == "-"
    )
    name = name[-60:].strip("-")
    client.create_bucket(Bucket=name)

    def holds():
        listed = client.list_objects_v2(Bucket=name).get("Contents", [])
        keys = [one["Key"] for one in listed if not one["Key"].endswith("/")]
        return {key: client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}

    return name, holds


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_is_a_storage_as_a_folder_is(kind, bucket):
    if kind == "s3a" and importlib.util.find_spec("s3fs") is None:
        pytest.skip("s3fs is not installed: make test-cluster")
    name, holds = bucket
    there = storage(f"{kind}://{name}/place")
    assert there.names() == {}
    for data in (b"some bytes", b"other"):
        there.write("deeper/a b.png", data)
        assert there.read("deeper/a b.png") == data
    assert there.has("deeper/a b.png")
    assert not there.has("deeper")
    assert there.names() == {"deeper/a b.png": 5}
    with pytest.raises(ImageError, match=r"none\.png"):
        there.read("none.png")
    there.probe()
    there.clean()
    assert holds() == {"place/deeper/a b.png": b"other"}


def test_what_comes_from_a_bucket_goes_into_one_as_the_command_makes_it(bucket, tmp_path, model_file):
    name, holds = bucket
    photos = storage(f"s3://{name}/photos")
    for title in ("a.png", "deeper/b.png", "notes.txt"):
        photos.write(title, png(len(title)))
    place, output = photos.address, f"s3://{name}/photos/large"
    rows = Upscaler(output, str(model_file)).upscale(to_do(find([place]), output)[0])
    assert [(row["result"], row["error"]) for row in rows] == [("a.png", ""), ("deeper/b.png", "")]
    (tmp_path / "a.png").write_bytes(png(len("a.png")))
    assert main(["upscale", str(tmp_path / "a.png"), "-o", f"{tmp_path}/large.png", "--model", str(model_file)]) == 0
    assert holds()["photos/large/a.png"] == (tmp_path / "large.png").read_bytes()
    assert to_do(find([place]), output) == ([], 2)


def test_an_address_may_say_how_its_storage_is_reached(bucket, monkeypatch):
    """Of a table, too; and what lies within it is still found out."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    name, _ = bucket
    server_of = "?endpoint_override=" + os.environ["AWS_ENDPOINT_URL"]
    table = io.BytesIO()
    parquet.write_table(arrow.table({"name": ["c.png"], "bytes": [png()]}), table)
    storage(f"s3://{name}/in").write("t.parquet", table.getvalue())
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for place in (f"s3://{name}/in/t.parquet{server_of}", f"s3://{name}/in{server_of}", f"s3://{name}/in/{server_of}"):
        (source,) = find([place])
        assert source.title == "c.png"
        assert Upscaler(f"s3://{name}/out{server_of}")._read(source) == png()
        assert inside(f"s3://{name}/in{server_of}", f"s3://{name}/in/large{server_of}") == "large"
    with pytest.raises(InputError, match="is where images are read"):
        to_do(find([f"s3://{name}/in{server_of}"]), f"s3://{name}/in{server_of}")


def test_an_output_that_cannot_be_written_is_said_before_anything_is_made(bucket, tmp_path, model_file):
    name, _ = bucket
    storage(f"s3://{name}/photos").write("a.png", png())
    sources = find([f"s3://{name}/photos"])
    with pytest.raises(ImageError, match=r"cannot write .* into s3://no-such-bucket/large .*NO_SUCH_BUCKET"):
        next(upscale(sources, "s3://no-such-bucket/large", model=str(model_file)))
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"cannot make the folder|is not a folder|cannot write"):
        next(upscale(sources, f"{tmp_path}/file/large", model=str(model_file)))


@needs_ray
@pytest.mark.slow
def test_two_workers_at_a_bucket_one_killed(bucket, tmp_path, model_file):
    """40 images; one of two workers is killed meanwhile, and the job is run again."""
    name, holds = bucket
    photos, mark = storage(f"s3://{name}/photos"), f"MGA_TEST={tmp_path}"
    for number in range(40):
        photos.write(f"{number:02}.png", png(number))
    words = [
        "cluster",
        photos.address,
        "-o",
        f"s3://{name}/large",
        "--model",
        model_file,
        "--cpus",
        "1",
        "--workers",
        "2",
    ]
    environment = {"MGA_TEST": str(tmp_path), "RAY_ADDRESS": "", "RAY_worker_niceness": "0"}
    process = commands.start(*words, environment=environment)
    large = storage(f"s3://{name}/large")
    try:
        end = time.monotonic() + 500
        while len(large.names()) < 3:
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()
        victims = workers_of(mark)
        assert len(victims) == 2
        os.kill(victims[0], signal.SIGKILL)
        said, errors = process.communicate(timeout=500)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    assert f"40 of 40 images upscaled into {large.address}" in said
    made = {key: data for key, data in holds().items() if key.startswith("large/")}
    assert sorted(made) == [f"large/{number:02}.png" for number in range(40)]
    assert all(Image.open(io.BytesIO(data)).size == (16, 12) for data in made.values())
    code, said, errors = commands.run(*words, environment=environment, timeout=500)
    assert (code, said) == (0, f"0 of 40 images upscaled into {large.address}, 40 were there\n"), errors
