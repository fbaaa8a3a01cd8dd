"""The file of figures: no row is lost, none of other code counts, and tables are made of what it holds."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import write_tiny_model

from mga.cli import main
from mga.evaluation.suite import runners, store
from mga_kernels import version
from mga_kernels.checkpoints import save_model
from mga_kernels.networks import MaskGuidedNetwork, ModelConfig

RESULTS = Path(__file__).parent.parent / "bench/results"
SUITE = """
scale = 2
folders = ["{folder}/sets"]
variants = {variants}
k = {k}
size = "64x48"
[[models]]
name = "tiny"
file = "{folder}/tiny.safetensors"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of one image, and a model."""
    (tmp_path / "sets/One").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((32, 40), Image.Resampling.BICUBIC).save(tmp_path / "sets/One/im.png")
    write_tiny_model(tmp_path / "tiny.safetensors")
    return tmp_path


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """What is measured, as it is: -B, or K of -M."""
    made, original = [], runners.Runner.upscale
    monkeypatch.setattr(
        runners.Runner, "upscale", lambda self, row, lr: made.append(row.k or row.variant) or original(self, row, lr)
    )
    return made


def write_suite(folder: Path, variants: list[str], *k: int) -> Path:
    """The rows bicubic, -B and -M, as far as they are asked for."""
    text = SUITE.format(folder=folder, variants=json.dumps(variants), k=json.dumps(k))
    (folder / "suite.toml").write_text(text)
    return folder / "suite.toml"


def evaluate(folder: Path, variants: list[str], *k: int, code: int = 0) -> list[dict]:
    """The rows of the file afterwards."""
    suite = write_suite(folder, variants, *k)
    assert main(["evaluate", str(suite), "--json", str(folder / "rows.json")]) == code
    return rows_in(folder / "rows.json")


def rows_in(path: Path) -> list[dict]:
    return json.loads(path.read_text())["rows"]


def names(rows: list[dict]) -> list[object]:
    return ["bicubic" if row["file"] is None else row["k"] or row["variant"] for row in rows]


def test_a_new_row_in_the_middle_that_is_stopped_loses_none(folder, measured, monkeypatch):
    before = evaluate(folder, ["base", "masked"], 2, 4, 6)
    assert names(before) == ["bicubic", "base", 2, 4, 6]
    measured.clear()
    whole = runners.Runner.upscale

    def stopped(self, row, lr):
        raise KeyboardInterrupt

    monkeypatch.setattr(runners.Runner, "upscale", stopped)
    assert evaluate(folder, ["base", "masked"], 3, 2, 4, 6, code=130) == before
    monkeypatch.setattr(runners.Runner, "upscale", whole)
    after = evaluate(folder, ["base", "masked"], 3, 2, 4, 6)
    assert names(after) == ["bicubic", "base", 3, 2, 4, 6]
    assert measured == [3]
    assert [row for row in after if row["k"] != 3] == before


def test_the_figures_of_an_image_stand_on_a_line(folder):
    """So that a file of hundreds of images can be read, and two versions of it compared."""
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "sets/One/other.png")
    evaluate(folder, ["base"])
    lines = (folder / "rows.json").read_text().splitlines()
    for name in ("im", "other"):
        found = [line for line in lines if f'"name": "{name}"' in line]
        assert len(found) == 2, "of two rows"
        assert all("psnr" in line for line in found)


def test_a_suite_that_asks_for_less_keeps_the_rest(folder, measured):
    before = evaluate(folder, ["base", "masked"], 2, 4)
    less = evaluate(folder, ["masked"], 4)
    assert names(less) == ["bicubic", 4, "base", 2], "those that it asks for come first"
    measured.clear()
    assert evaluate(folder, ["base", "masked"], 2, 4) == before
    assert not measured


def test_a_process_that_is_killed_loses_none(folder, forks):
    before = evaluate(folder, ["base", "masked"], 2, 4)
    suite = write_suite(folder, ["base", "masked"], 2, 3, 4)
    script = (
        "import os, signal, torch\nfrom mga.cli import main\nfrom mga.evaluation.suite import runners\n"
        f"torch.set_num_threads({torch.get_num_threads()})  # rows are of a number of threads\n"
        "runners.Runner.upscale = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"main(['evaluate', {str(suite)!r}, '--json', {str(folder / 'rows.json')!r}])\n"
    )
    assert forks.result(script).returncode == -signal.SIGKILL
    assert sorted(names(rows_in(folder / "rows.json")), key=str) == sorted(names(before), key=str)


WRITER = """
import os, sys, time
from pathlib import Path
from mga.evaluation.suite.store import Store
path, child = Path(sys.argv[1]), os.fork()
me = "a" if child else "b"
store, rows = Store(path), []
Path(sys.argv[1] + me).touch()
while not all(Path(sys.argv[1] + other).exists() for other in "ab"):
    time.sleep(0.001)
for number in range(40):
    rows.append({"key": f"{me}{number}", "code": "x", "settings": {"scale": 2}, "sets": {}})
    store.write(rows)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_two_processes_that_write_one_file_lose_none(tmp_path, forks):
    """Each reads, adds and writes forty times, while the other does."""
    forks.run(WRITER, tmp_path / "rows.json")
    keys = {row["key"] for row in rows_in(tmp_path / "rows.json")}
    assert keys == {f"{me}{number}" for me in "ab" for number in range(40)}


def test_rows_of_other_code_do_not_count(folder, measured, monkeypatch, capsys):
    before = evaluate(folder, ["base", "masked"], 2)
    assert {row["code"] for row in before} == {store.code_of_figures()}
    measured.clear()
    monkeypatch.setattr(store, "code_of_figures", lambda: "of tomorrow")
    capsys.readouterr()
    evaluate(folder, ["masked"], 2)
    assert measured == [2]
    path = folder / "rows.json"
    assert f"note: 3 of 3 rows in {path} were measured by other code and do not count" in capsys.readouterr().err
    assert [(row["k"] or row["variant"], row["code"]) for row in rows_in(path)] == [
        ("base", "of tomorrow"),  # bicubic
        (2, "of tomorrow"),
        ("base", before[0]["code"]),
    ], "what was not measured anew is still there"


def test_figures_are_of_a_machine(folder, measured):
    evaluate(folder, ["base"])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert names(evaluate(folder, ["base"])) == ["bicubic", "base"] * 2
        assert measured == ["base"] * 2
    finally:
        torch.set_num_threads(threads)
    evaluate(folder, ["base"])
    assert measured == ["base"] * 2


def test_the_code_of_the_figures_is_that_which_computes():
    """A change of a table's layout or of a text measures nothing anew; one of a metric or a kernel does."""
    files = {f"{name.partition('.')[0]}/{file}" for name in store.MEASURING for file, _ in version._sources(name)}
    computing = "complexity/counting evaluation/masks evaluation/metrics evaluation/resize evaluation/testsets"
    computing += " evaluation/suite/runners evaluation/suite/table"
    assert {"mga_kernels/engine/model.py", *(f"mga/{name}.py" for name in computing.split())} <= files
    assert not {file for file in files if "markdown" in file} | {"mga/complexity/table.py"} & files


def test_the_code_of_a_network_of_ones_own_counts(tmp_path, monkeypatch):
    file = tmp_path / "own_network_of_a_test.py"
    file.write_text("from torch import nn\nclass Own(nn.Conv2d):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_network_of_a_test  # type: ignore[import-not-found]

    network = MaskGuidedNetwork(ModelConfig("fsrcnn", 2))
    assert runners._own_code(network) == []
    network.add_module("more", own_network_of_a_test.Own(3, 3, 1))
    assert runners._own_code(network) == [file]


def old(rows: list[dict], path: Path) -> None:
    """Write them as the code before did: no code, and the settings once."""
    fields = ("code", "machine", "settings")
    rows = [{name: value for name, value in row.items() if name not in fields} for row in rows]
    rows = [row | {"key": f"old {number}"} for number, row in enumerate(rows)]
    record = {"scale": 2, "size": "64x48", "seconds": "tensors", "images": "tensors", "rows": rows}
    path.write_text(json.dumps(record))


def test_files_of_older_code_are_measured_anew_and_lose_no_other_row(folder, measured, capsys):
    old(evaluate(folder, ["base", "masked"], 2, 4), folder / "rows.json")
    measured.clear()
    rows = evaluate(folder, ["base", "masked"], 4)
    assert measured == ["base", 4]
    assert [(row["k"], row["key"].startswith("old")) for row in rows] == [
        (None, False),
        (None, False),
        (4, False),
        (2, True),
    ]
    assert "4 of 4 rows" in capsys.readouterr().err


def test_a_table_of_rows_as_they_are(folder, measured, capsys):
    evaluate(folder, ["base", "masked"], 2, 4)
    table = capsys.readouterr().out
    table = table[table.index("# Evaluation") :]
    measured.clear()
    path = folder / "rows.json"
    (folder / "sets/One/im.png").unlink()  # nothing but the file is needed
    assert main(["evaluate", str(path), "-o", str(folder / "table.md")]) == 0
    assert (folder / "table.md").read_text() == table
    assert capsys.readouterr().out == table
    old(rows_in(path), path)
    assert main(["evaluate", str(path)]) == 0
    assert capsys.readouterr().out == f"{table}\nOf these 4 rows 4 were measured by other code than today's.\n"
    assert not measured


def test_rows_of_several_suites_are_several_tables(folder, capsys):
    evaluate(folder, ["base"])
    suite = write_suite(folder, ["base"])
    suite.write_text(suite.read_text().replace("64x48", "32x16"))
    assert main(["evaluate", str(suite), "--json", str(folder / "rows.json")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder / "rows.json")]) == 0
    text = capsys.readouterr().out
    assert [text.count(part) for part in ("# Evaluation, x2", "GMACs at 64x48", "GMACs at 32x16")] == [2, 1, 1]


def test_a_table_has_the_newest_row_of_each_name(folder, capsys):
    old_rows = evaluate(folder, ["base"])
    torch.manual_seed(1)
    save_model(folder / "tiny.safetensors", MaskGuidedNetwork(ModelConfig("fsrcnn", 2)), {}, {})
    rows = evaluate(folder, ["base"])
    assert rows[0] == old_rows[0]
    assert rows[2:] == old_rows[1:], "those of the weights before are still there"
    expected = capsys.readouterr().out
    assert main(["evaluate", str(folder / "rows.json")]) == 0
    assert capsys.readouterr().out == expected[expected.rindex("# Evaluation") :]


COMMITTED = [path for path in sorted(RESULTS.glob("*.json")) if store.is_store(path)]


def test_the_committed_files_are_found():
    assert {path.stem for path in COMMITTED} >= {"published_x2", "published_x4"}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_committed_tables_are_those_of_the_committed_rows(path):
    title, *lines = path.with_suffix(".md").read_text().splitlines()
    assert title.startswith("# ")
    assert store.tables(path).splitlines()[1 : 1 + len(lines)] == lines


def test_no_file_is_written_over_another(folder, capsys):
    evaluate(folder, ["base"])
    rows, suite = folder / "rows.json", folder / "suite.toml"
    before = rows.read_bytes(), suite.read_bytes()
    one = ["--hr", folder / "sets/One", "--scale", "2", "--model", folder / "tiny.safetensors"]
    for words, message in (
        ([suite, "--json", rows, "-o", rows], "are different files"),
        ([suite, "-o", suite], "are different files"),
        ([rows, "-o", rows], "are different files"),
        ([rows, "--json", folder / "other.json"], "--json is for figures that are measured"),
        ([rows, "--k", "3"], "--k is a setting of the suite"),
        ([folder / "none.json"], "there is no file of figures"),
        ([*one, "--json", rows], "holds the rows of a suite, which would be lost"),
    ):
        assert main(["evaluate", *map(str, words)]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert (rows.read_bytes(), suite.read_bytes()) == before
    assert not (folder / "other.json").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"rows": 3}', '{"rows": [{"key": "x"}]}', '{"rows": [3]}', '{"row']
)
def test_files_that_are_none_of_rows_stay_as_they_are(folder, capsys, content):
    (folder / "rows.json").write_text(content)
    suite = write_suite(folder, ["base"])
    for words in ([suite, "--json", folder / "rows.json"], [folder / "rows.json"]):
        assert main(["evaluate", *map(str, words)]) == 1
        error = capsys.readouterr().err
        assert "is no file of figures to go on with" in error
        assert error.count("\n") == 1
    assert (folder / "rows.json").read_text() == content
