"""Warnings of ``mga upscale`` stand with the image that they are about, whichever thread it is in."""

import threading
import warnings

from pictures import picture
from PIL import Image

import mga.upscaling.work
from mga.console.said import said_by_thread


def test_what_is_said_stays_in_its_thread():
    barrier, heard = threading.Barrier(3), {}

    def speak(name, said):
        for number in range(50):
            barrier.wait()
            warnings.warn(f"{name} {number}", stacklevel=1)
            warnings.warn("the same again", stacklevel=1)
            barrier.wait()
            heard.setdefault(name, []).extend(said())

    with said_by_thread() as said:
        threads = [threading.Thread(target=speak, args=(name, said)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said() == []
    for name in "abc":
        assert heard[name] == [text for n in range(50) for text in (f"{name} {n}", "the same again")]


def test_other_warnings_are_shown_and_all_is_as_before_afterwards():
    filters, show = list(warnings.filters), warnings.showwarning
    with warnings.catch_warnings(record=True) as shown:
        with said_by_thread() as said:
            warnings.warn("kept\nin one line", stacklevel=1)
            warnings.warn("shown", RuntimeWarning, stacklevel=1)
            assert said() == ["kept in one line"]
    assert [str(each.message) for each in shown] == ["shown"]
    assert warnings.filters == filters
    assert warnings.showwarning is show


def test_notes_stand_with_their_image(tmp_path, mga_upscale, monkeypatch):
    """Reading runs ahead in a thread of its own, so that what it says falls into the time of other images."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(picture(20, 20, seed=number)).save(folder / f"{number}.png")

    def saying(what, step):
        def with_warning(*arguments, **named):
            for given in arguments:
                source = getattr(getattr(given, "job", given), "source", None)
                if source is not None:
                    warnings.warn(f"{what} {source.stem}", stacklevel=1)
            return step(*arguments, **named)

        return with_warning

    for name, what in (("read_job", "read"), ("compute_job", "computed"), ("write_job", "wrote")):
        monkeypatch.setattr(mga.upscaling.work, name, saying(what, getattr(mga.upscaling.work, name)))
    code, output = mga_upscale(folder, "-o", tmp_path / "out")
    assert code == 0
    lines = [line.strip() for line in output.out.splitlines() if ".png: " in line]
    for number in range(6):
        mine = [line.partition(": ")[2] for line in lines if line.startswith(f"{number}.png")]
        assert mine == [f"{what} {number}" for what in ("read", "computed", "wrote")]
