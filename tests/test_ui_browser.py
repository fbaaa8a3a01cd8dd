"""``mga ui`` in a headless browser: a photograph dropped, the slider moved, the result downloaded.

It needs Playwright (extra ``dev``) and a Chromium, its own (playwright install chromium) or the system's.
"""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ui_page import found, served

from mga.cli import main

for package in ("starlette", "uvicorn"):
    pytest.importorskip(package, reason="the page needs it: pip install 'mga_kernels[ui]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs a package: pip install playwright")

BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(model_file, temporary):
    with served("--model", model_file, folder=temporary) as page:
        yield page.address


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as driver:
        if found is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("there is no Chromium: apt install chromium, or playwright install chromium")
        options = ["--no-sandbox", "--disable-gpu"]  # root has no sandbox
        browser = driver.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The open page. It asks for nothing elsewhere, and nothing in it fails."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1200, "height": 900})
    page, faults = context.new_page(), []
    page.on("request", lambda request: None if request.url.startswith(address) else faults.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(address)
    playwright.expect(page.locator("#model option")).not_to_have_count(0)
    yield page
    expected = "the server responded with a status of 400"  # of a file that is refused, which is a sentence
    assert [fault for fault in faults if expected not in fault] == []
    context.close()


def write(path, height=48, width=64, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def expected(source, model_file, *options):
    out = source.parent / "expected"
    assert main(["upscale", str(source), "-o", f"{out}/", "--model", str(model_file), "--overwrite", *options]) == 0
    return (out / f"{source.stem}.png").read_bytes()


def make(page, *paths, **choices):
    page.set_input_files("#files", [str(path) for path in paths])
    playwright.expect(page.locator("#pictures button")).to_have_count(len(paths))
    for name, value in choices.items():
        page.select_option(f"#{name}", value)
    page.click("#go")
    playwright.expect(page.locator("#results li[data-state=done]")).to_have_count(len(paths), timeout=60000)


def saved(page, selector, path):
    with page.expect_download() as download:
        page.click(selector)
    download.value.save_as(path)
    return path


def column(page, share):
    """Colours down the middle of the comparison at this share of its width, as they are on the screen."""
    box = page.locator("#compare").bounding_box()
    shot = Image.open(__import__("io").BytesIO(page.screenshot()))
    x, y = round(box["x"] + share * box["width"]), round(box["y"] + box["height"] / 2)
    return np.asarray(shot.convert("RGB"))[y - 40 : y + 40, x]


def test_a_photograph_is_made_larger(page, model_file, tmp_path):
    source = write(tmp_path / "photo.png")
    make(page, source, model=str(model_file))
    assert "K = 3" in page.locator("#facts").inner_text()
    assert saved(page, "#results a", tmp_path / "saved.png").read_bytes() == expected(source, model_file)
    assert page.locator("#results li").inner_text().startswith("photo.png 128x96, ")


def test_the_slider_shows_before_and_after(page, model_file, tmp_path):
    source = tmp_path / "photo.png"
    pixels = np.full((48, 64, 3), 90, np.uint8)
    pixels[::2] = 160
    Image.fromarray(pixels).save(source)
    make(page, source, model=str(model_file))
    for image in ("#before", "#after"):
        page.wait_for_function("selector => document.querySelector(selector).naturalWidth > 0", arg=image)
    assert page.evaluate("document.querySelector('#after').naturalWidth") == 128
    assert page.evaluate("document.querySelector('#before').naturalWidth") == 64
    sides = {}
    box = page.locator("#slider").bounding_box()
    for name, share in (("after", 0.02), ("before", 0.98)):  # what is right of the slider is after
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        page.mouse.up()
        page.wait_for_timeout(200)
        sides[name] = column(page, 0.5)
    assert not np.array_equal(sides["before"], sides["after"])
    left_of_it = column(page, 0.5)
    assert np.array_equal(left_of_it, sides["before"])
    page.locator("#slider").focus()
    page.keyboard.press("Home")  # by keyboard, too
    page.wait_for_timeout(200)
    assert np.array_equal(column(page, 0.5), sides["after"])


def test_refined_cells_are_shown(page, model_file, tmp_path):
    make(page, write(tmp_path / "photo.png"), model=str(model_file))
    before = page.locator("#after").get_attribute("src")
    page.check("#cells")
    page.wait_for_function("document.querySelector('#after').src.includes('/mask?')")
    page.wait_for_function("document.querySelector('#after').naturalWidth === 128")
    page.uncheck("#cells")
    assert page.locator("#after").get_attribute("src") == before
    page.set_input_files("#files", str(write(tmp_path / "photo.png")))
    page.select_option("#quality", "whole")
    page.click("#go")
    playwright.expect(page.locator("#results li[data-state=done]")).to_have_count(2, timeout=60000)
    page.locator("#results button").nth(1).click()
    assert not page.locator("#with-cells").is_visible()


def test_many_photographs_by_size_into_a_zip(page, model_file, tmp_path):
    sources = [write(tmp_path / name, seed=i) for i, name in enumerate(("a.png", "b.png", "c.png"))]
    page.select_option("#model", str(model_file))
    page.select_option("#by", "--width")
    page.fill("#size", "100")
    make(page, *sources)
    archive = zipfile.ZipFile(saved(page, "#zip", tmp_path / "saved.zip"))
    assert archive.namelist() == ["a.png", "b.png", "c.png"]
    assert archive.read("b.png") == expected(sources[1], model_file, "--width", "100")


def test_what_is_wrong_is_a_sentence_in_the_page(page, model_file, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    page.set_input_files("#files", [str(tmp_path / "notes.txt"), str(write(tmp_path / "a.png"))])
    playwright.expect(page.locator("#error")).to_contain_text("notes.txt is not an image of a kind")
    playwright.expect(page.locator("#pictures button")).to_have_count(1)  # the other one is there
    page.select_option("#model", str(model_file))
    page.select_option("#by", "--scale")
    page.fill("#size", "-1")
    page.click("#go")
    playwright.expect(page.locator("#error")).to_contain_text("the scale is a number above 0")
    page.fill("#size", "1.5")
    page.click("#go")
    playwright.expect(page.locator("#results li[data-state=done]")).to_have_count(1, timeout=60000)
    page.fill("#path", str(tmp_path / "notes.txt"))
    page.click("#add")
    playwright.expect(page.locator("#error")).to_contain_text("notes.txt")


def test_names_are_text(page, model_file, tmp_path):
    source = write(tmp_path / "<img src=x onerror=alert(1)>.png")
    make(page, source, model=str(model_file))
    assert page.locator("#results img").count() == 0


def test_closing_the_page_during_work_removes_its_files(browser, address, model_file, tmp_path, temporary):
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.set_input_files("#files", [str(write(tmp_path / f"closed{i}.png", 900, 1200)) for i in range(5)])
    playwright.expect(page.locator("#pictures button")).to_have_count(5)
    page.select_option("#model", str(model_file))
    page.click("#go")
    playwright.expect(page.locator("#results li[data-state=working]")).to_have_count(1, timeout=60000)
    assert found(temporary, "closed*.png")
    with page.expect_event("close"):  # or closing the context may wait for ever
        page.close(run_before_unload=True)
    end = time.monotonic() + 60
    while found(temporary, "closed*.png"):
        assert time.monotonic() < end
        time.sleep(0.05)
    context.close()
