"""bench/results: every file has its line in README.md there, and tables are those of the JSON beside them."""

import json
import math
from fnmatch import fnmatch
from pathlib import Path

import pytest

from mga.files.records import to_json
from mga_kernels.checkpoints import read_metadata, shipped_models
from mga_kernels.networks import ModelConfig

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"


def test_each_file_has_one_line_that_says_what_made_it():
    lines = (RESULTS / "README.md").read_text().splitlines()
    patterns = [line.split("`")[1] for line in lines if line.startswith("| `")]
    kept = [path.name for path in RESULTS.glob("*.*") if path.suffix in (".json", ".md")]
    kept = [name for name in kept if name != "README.md" and not name.startswith("gpu-")]  # of the machine at hand
    assert {name: sum(fnmatch(name, pattern) for pattern in patterns) for name in kept} == dict.fromkeys(kept, 1)
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in kept)] == []


def test_files_that_are_quoted_exist():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for word in page.read_text().replace("`", " ").split():
            if word.startswith("bench/results/"):
                assert (ROOT / word.rstrip(".,;:)")).exists(), f"{page.name} names {word}"


def test_the_page_of_images_is_made_from_their_records(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import report

    assert (RESULTS / "images.md").read_text() == report.table(report.load(RESULTS))


def test_the_page_of_published_files_is_made_from_its_record(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import published

    record = json.loads((RESULTS / "published.json").read_text())
    assert (RESULTS / "published.md").read_text() == published.table(record)


@pytest.mark.parametrize("page", ["masks.md", "masks_avx512_bf16.md"])
def test_each_shipped_mask_was_compared_with_the_free_one_and_the_better_is_the_usual_one(page):
    """By the mean over sets and shares; where both are level, the free one."""
    lines = [line for line in (RESULTS / page).read_text().splitlines() if line.startswith("| ")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    shares = [column for column, title in enumerate(table[0]) if title.endswith("%")]
    found: dict[str, dict[str, list[float]]] = {}
    for row in table[1:]:
        found.setdefault(row[0], {}).setdefault(row[2], []).extend(float(row[column]) for column in shares)
    shipped = {name: read_metadata(file)["config"] for name, file in shipped_models().items()}
    guided = {
        name: config for name, config in shipped.items() if isinstance(config, ModelConfig)
    }  # with a learned mask
    assert found.keys() == guided.keys()
    for name, config in guided.items():
        level = {way: sum(values) / len(values) for way, values in found[name].items()}
        assert config.usual_mask == ("learned" if level["learned"] > level["high-pass"] + 0.0005 else "high-pass"), name


@pytest.mark.parametrize("levels", [0, 1, 2, 9])
def test_records_come_back(levels):
    record = {"a": [{"b": [1, 2.5], "c": {}}, None, "ü\n"], "d": {"e": {"f": (True, [])}}, "g": []}
    text = to_json(record, levels)
    assert json.loads(text) == json.loads(json.dumps(record))
    assert text.endswith("}\n")


def test_a_row_is_a_line():
    rows = [{"name": "one", "size": [4, 4]}, {"name": "two", "size": [8, 8]}]
    lines = ["{", ' "versions": {"torch": "2"},', ' "rows": [', '  {"name": "one", "size": [4, 4]},']
    lines += ['  {"name": "two", "size": [8, 8]}', " ]", "}"]
    assert to_json({"versions": {"torch": "2"}, "rows": rows}).splitlines() == lines
    assert json.loads(to_json({"psnr": math.inf, "rows": [{"s": (math.nan, -math.inf, 1.5)}]})) == {
        "psnr": None,
        "rows": [{"s": [None, None, 1.5]}],
    }
