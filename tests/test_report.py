"""mga report: the figures on the page, the rule for K, the page as HTML, and what it does in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import originals
import pytest
from PIL import Image
from safetensors.torch import save_file
from tiny_model import write_tiny_model

from mga.cli import main
from mga.complexity import NetworkCosts, WholeCosts
from mga.evaluation.metrics import psnr_rgb, psnr_y
from mga.evaluation.resize import shrink_for_scale
from mga.report import measure, write, write_report
from mga.report.chart import Point, curve, ticks
from mga.report.measure import Figures, Psnr, Run, gather, steps_of_k, suggest
from mga.report.page import training_facts
from mga.report.pictures import VEIL, most_different, veil
from mga_kernels import MaskGuidedSR
from mga_kernels.errors import MGAError

HOSTILE = "<img src=x onerror=alert(1)>.png"
VOID = {"meta", "img", "input", "br", "link"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page(HTMLParser):
    """Elements of a page with their attributes, and its text; asserts that what opens closes."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.words.append(text)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += text

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(model, original, folder of HR images), x2; one image has a name that is HTML."""
    folder = tmp_path_factory.mktemp("report")
    model = write_tiny_model(folder / "tiny.safetensors")
    save_file(originals.msrresnet(2)[0], folder / "published.safetensors")
    (folder / "HR").mkdir()
    for i, name in enumerate(["plain.png", HOSTILE]):
        pixels = np.random.default_rng(i).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((58 + 4 * i, 46), Image.Resampling.BICUBIC).save(folder / "HR" / name)
    return model, folder / "published.safetensors", folder / "HR"


@pytest.fixture(scope="module")
def written(files, tmp_path_factory):
    """The page on HR images with K = 0 and 7, and its text."""
    model, original, hr = files
    out = write_report(
        model, original, None, tmp_path_factory.mktemp("out") / "page.html", hr, ks=[0, 7], dtype="float32"
    )
    return out, out.read_text()


@pytest.mark.parametrize(("longest", "turns"), [(60.0, 3), (0.0, 1)])
def test_turns_are_as_many_as_there_is_time_for(files, tmp_path, monkeypatch, longest, turns):
    """Each image once for its picture or to be warm, and for the timing."""
    model, original, hr = files
    monkeypatch.setattr(measure, "LONGEST", longest)
    monkeypatch.setattr(measure, "RUNTIMES", {"own": "a plan of our own"})
    runs: Counter[bool] = Counter()  # by whether it is the model, which has K

    class Counted(MaskGuidedSR):
        def upscale(self, *image, **options):
            runs[self.config.masked] += 1
            return super().upscale(*image, **options)

    monkeypatch.setattr(write, "MaskGuidedSR", Counted)
    said: list[str] = []
    write_report(model, original, None, tmp_path / "page.html", hr, ks=[0, 7], dtype="float32", say=said.append)
    images, ks = 2, 2
    assert runs == {True: images * ks * (1 + turns), False: 1 + turns + images * (1 + ks * (1 + turns))}
    assert [text for text in said if text.startswith("K = 7, 2 of 2, about ") and text.endswith(" seconds left")]


def test_the_figures_are_those_of_the_pictures(files, written):
    model, original, folder = files
    rows = {row[0].partition(" (")[0]: row[1:] for row in Page(written[1]).rows[1:]}
    pairs = [shrink_for_scale(np.array(Image.open(path)), 2) for path in sorted(folder.iterdir())]
    theirs = MaskGuidedSR.from_checkpoint(original, dtype="float32", runtime="pytorch")
    for k in (None, 0, 7):
        ours = theirs if k is None else MaskGuidedSR.from_checkpoint(model, k=k, dtype="float32")
        results = [(ours.upscale(lr), theirs.upscale(lr), hr) for hr, lr in pairs]
        against = [] if k is None else [[metric(a, b, 2) for a, b, _ in results] for metric in (psnr_y, psnr_rgb)]
        against += [[metric(a, hr, 2) for a, _, hr in results] for metric in (psnr_y, psnr_rgb)]
        row = rows["original" if k is None else f"K = {k}"]
        values = row[4:] if k is None else row[2:]
        assert [float(value) for value in values] == pytest.approx([np.mean(column) for column in against], abs=0.02)
        if k is None:
            costs = [WholeCosts(ours.config).cost("whole", lr.shape[1], lr.shape[0]).macs for _, lr in pairs]
        else:
            sizes = [[math.ceil(side / 4) * 4 for side in lr.shape[1::-1]] for _, lr in pairs]
            costs = [NetworkCosts(ours.config).cost("masked", *size, k).macs for size in sizes]
        assert float(row[1].replace(",", "")) == pytest.approx(np.mean(costs) / 1e9, abs=0.006)
        assert float(row[0]) > 0
    assert rows["K = 0"][2] != rows["K = 7"][2], "that K counts"


def test_the_page_is_whole_html_that_reaches_for_nothing(written):
    page = Page(written[1])
    assert "http://" not in written[1]
    assert "https://" not in written[1]
    images = page.all("img")
    assert len(images) == 2 * 2 * 3, "crop and whole, each original, -M and mask, of two images"
    assert all(image["src"].startswith("data:image/webp;base64,") and image["alt"] for image in images)
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    labelled = {label["for"] for label in page.all("label") if "for" in label}
    assert {one["id"] for one in page.all("input") if one["type"] == "range"} == labelled
    assert not [attributes for _, attributes in page.elements if "style" in attributes], "the policy forbids these"
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", written[1], re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_names_of_files_and_metadata_are_text(written):
    page = Page(written[1])
    assert "<img src=x" not in written[1]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert HOSTILE in "".join(page.words)
    assert any(HOSTILE in image["alt"] for image in page.all("img"))
    facts = {"results": {"mask": "<b>"}, "images": {"HR": {"files": ["a", "b"]}}, "settings": {"seed": 0}, "torch": "2"}
    expected = [("images HR", "2 images"), ("mask", "<b>"), ("torch", "2")]
    assert training_facts(facts) == [(f"training, {name}", value) for name, value in expected]


def test_pictures_of_the_crop_are_without_loss(files, written):
    _, original, folder = files
    path = sorted(folder.iterdir())[0]
    lr = shrink_for_scale(np.array(Image.open(path)), 2)[1]
    name = path.name
    sources = {image["alt"]: image["src"] for image in Page(written[1]).all("img") if name in image["alt"]}
    crop = next(source for alt, source in sources.items() if alt.startswith("original") and "crop" in alt)
    shown = Image.open(io.BytesIO(base64.b64decode(crop.partition(",")[2]))).convert("RGB")
    expected = MaskGuidedSR.from_checkpoint(original, dtype="float32", runtime="pytorch").upscale(lr)
    difference = np.abs(np.asarray(shown).astype(int) - expected)
    assert difference.max() <= 1, "an image smaller than a crop is shown whole"


def run_of(k: int, luma: float, hr: float | None = None) -> Run:
    truth = None if hr is None else Psnr(hr, hr)
    return Run(k, "", (Figures(1.0, 1.0, Psnr(luma, luma), truth),))


def test_the_smallest_k_near_the_best_is_suggested():
    runs = [run_of(0, 40.0, 30.0), run_of(250, 42.0, 30.085), run_of(500, 42.05, 30.1), run_of(900, 41.0, 30.095)]
    assert suggest(runs).k == 250, "within 0.02 dB against HR"
    assert suggest(runs[::2]).k == 500
    alone = [run_of(run.k, run.against_original.luma) for run in runs]
    assert suggest(alone).k == 250, "within 0.1 dB against the original"
    assert suggest([run_of(0, 41.9), run_of(250, 42.01)]).k == 250
    assert suggest([run_of(0, 80.0), run_of(250, math.inf), run_of(500, math.inf)]).k == 250


def test_steps_of_k():
    assert steps_of_k(32400) == [0, 250, 500, 1000, 2000, 4000, 8000, 16000, 32400]
    assert steps_of_k(1000) == [0, 250, 500, 1000]
    assert steps_of_k(40) == [0, 10, 20, 40]
    assert steps_of_k(1) == [0, 1]


def test_images_are_taken_evenly(tmp_path):
    for i in range(9):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    samples, left_out = gather(tmp_path, None, 2, most=3)
    assert [(sample.name, int(sample.lr[0, 0, 0])) for sample in samples] == [("0.png", 0), ("4.png", 4), ("8.png", 8)]
    assert left_out == 6


def test_lr_images_are_paired_by_name(tmp_path):
    for folder, size in (("HR", (8, 6)), ("LR", (4, 3))):
        (tmp_path / folder).mkdir()
        Image.new("RGB", size, (len(folder), size[0], 0)).save(tmp_path / folder / "a.png")
    (sample,), _ = gather(tmp_path / "LR", tmp_path / "HR", 2)
    assert sample.lr[0, 0].tolist() == [2, 4, 0]
    assert sample.hr[0, 0].tolist() == [2, 8, 0]


def test_the_crop_is_where_the_images_differ_most():
    image = np.full((60, 80, 3), 90, np.uint8)
    other = image.copy()
    other[5, 5] = 120
    other[40:44, 60:64] = 140
    left, top, right, bottom = most_different(image, other, 20)
    assert left in range(44, 61)
    assert top in range(24, 41)
    assert (right - left, bottom - top) == (20, 20)
    left, top, right, bottom = most_different(image, other, 70)
    assert (top, right - left, bottom) == (0, 70, 60), "not larger than the image"


def test_the_veil_is_strong_where_cells_are_refined():
    mask = np.array([[0.0, 1.0, 0.5], [0.2, 0.1, 0.3]], np.float32)
    pixels = np.asarray(veil(mask, np.array([1, 5]), 4, (10, 7)))
    assert pixels.shape == (7, 10, 4)
    assert (pixels[:4, 4:8, 3] == VEIL[0]).all()
    assert (pixels[4:, 8:, 3] == VEIL[0]).all()
    assert (pixels[..., 3] == VEIL[0]).sum() == 16 + 6
    assert (pixels[..., 3] == VEIL[1]).sum() == 70 - 22
    assert pixels[0, 4, :3].tolist() == [255, 240, 90]
    assert pixels[0, 0, :3].tolist() == [70, 110, 255]


def test_the_curve_has_its_points_where_they_belong():
    points = [Point("K = 0", 1.0, 30.0, "k"), Point("K = <9>", 2.0, 31.0, "suggested")]
    points.append(Point("original", 4.0, math.inf, "original"))
    text = curve(points, "PSNR")
    page = Page(text)
    places = [(float(one["cx"]), float(one["cy"])) for one in page.all("circle") if one["class"] == "point"]
    path = next(one for one in page.all("polyline"))["points"]
    assert path == " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    (first, low), (second, high) = places
    assert low > high
    origin = 2 * first - second
    ring = next(one for one in page.all("circle") if one["class"] == "ring")
    assert (float(ring["cx"]), float(ring["cy"])) == places[1]
    diamond = next(one for one in page.all("path") if one["class"] == "original")["d"]
    x, y = map(float, re.match(r"M([\d.]+),([\d.]+)", diamond).groups())
    assert x - origin == pytest.approx(4 * (first - origin), abs=0.5)
    assert y < high
    assert "<9>" not in text
    assert [*map("".join(page.words).count, ("K = 0", "K = <9>", "original"))] == [2, 2, 2], "a label and a title each"
    crowded = curve([Point("K = 0", 1.0, math.inf, "suggested"), Point("original", 1.05, math.inf, "original")], "PSNR")
    assert [one["class"] for one in Page(crowded).all("text")][-2:] == ["label suggested", "label original"]
    assert ticks(0, 1.0) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(29.93, 31.07) == [30.0, 30.5, 31.0]


def refused(arguments, tmp_path, capsys) -> str:
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *map(str, arguments)]) == 1
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left"
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_what_cannot_be_is_said_in_a_sentence(files, tmp_path, capsys):
    model, original, hr = files
    empty, existing = tmp_path / "empty", tmp_path / "there.html"
    empty.mkdir()
    existing.write_text("kept")
    other = write_tiny_model(tmp_path / "x4.safetensors", scale=4)
    out = ["-o", tmp_path / "new.html"]
    whole = ["--original", original]
    assert "x4" in refused([other, *whole, "--images", hr, *out], tmp_path, capsys)
    assert "no image" in refused([model, *whole, "--images", empty, *out], tmp_path, capsys)
    assert "nothing to compare on" in refused([model, *whole, *out], tmp_path, capsys)
    assert "exists" in refused([model, *whole, "--images", hr, "-o", existing], tmp_path, capsys)
    assert existing.read_text() == "kept"
    assert "is a folder" in refused([model, *whole, "--images", hr, "-o", empty], tmp_path, capsys)
    assert "does not exist" in refused([model, *whole, "--images", hr, "-o", tmp_path / "no/a.html"], tmp_path, capsys)
    assert "no K" in refused([original, *whole, "--images", hr, *out], tmp_path, capsys)
    assert "mask-guided" in refused([model, "--original", model, "--images", hr, *out], tmp_path, capsys)


def test_a_failure_while_writing_leaves_what_was_there(files, tmp_path, monkeypatch):
    model, original, hr = files
    out = tmp_path / "page.html"
    out.write_text("old")

    def fail(*_):
        raise MGAError("stopped")

    monkeypatch.setattr(write, "render", fail)
    with pytest.raises(MGAError, match="stopped"):
        write_report(model, original, hr, out, ks=[0], overwrite=True)
    assert out.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [out]


def test_the_command_writes_a_page_without_hr(files, tmp_path, capsys):
    model, original, folder = files
    out = tmp_path / "page.html"
    arguments = ["report", model, "--original", original, "--images", folder, "-o", out, "--k", "0", "5"]
    assert main([str(word) for word in arguments]) == 0
    assert str(out) in capsys.readouterr().out
    page = Page(out.read_text())
    assert page.rows[0][1:] == ["seconds", "GMACs", "luma against original, dB", "RGB against original, dB"]
    assert f"mga upscale PHOTO -o LARGE.png --model {model} --k" in "".join(page.words)


def test_in_a_browser(written):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"there is no browser; looked for {', '.join(BROWSERS)}")
    said, asked = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(written[0].as_uri())
        before, after = (page.locator(f"#crop-0 .{name}") for name in ("before", "after"))
        clip = "element => getComputedStyle(element).clipPath"
        slider = page.locator("#slider-crop-0")
        assert before.evaluate(clip) == "inset(0px 50% 0px 0px)"
        slider.focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        assert before.evaluate(clip) == "inset(0px 40% 0px 0px)"
        place = after.bounding_box()
        page.mouse.click(place["x"] + place["width"] / 4, place["y"] + place["height"] / 2)
        assert abs(int(slider.input_value()) - 25) <= 1
        assert page.locator("#slider-whole-0").input_value() == "50", "the other slider stays"
        mask = page.locator("#crop-0 .veil")
        assert not mask.is_visible()
        page.get_by_label("show the mask").first.check()
        assert mask.is_visible()
        assert mask.bounding_box() == pytest.approx(place), "over the picture"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        browser.close()
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [written[0].as_uri()]
