"""Images one after another: order, errors in their place, what runs beside what, how much is held, how it ends."""

import gc
import os
import signal
import threading
import time
import weakref
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from tiny_model import write_tiny_model

from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.engine.overlap import overlap
from mga_kernels.errors import ImageError, InputError, OutOfMemoryError
from mga_kernels.images import read_image

LONG = 20  # seconds after which a test gives up waiting; none waits that long unless it fails


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")
    return MaskGuidedSR.from_pretrained(file, device="cpu")


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not threads()


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mga-")]


def pixels(seed, height=10, width=14):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(value):
    return value


def test_results_are_those_of_upscale_in_order_and_in_the_form_of_their_source(tmp_path, model):
    Image.fromarray(pixels(0)).save(tmp_path / "a.png")
    photo = read_image(pixels(1, 12, 9))
    grey = Image.fromarray(pixels(2)).convert("L")
    sources = [tmp_path / "a.png", pixels(3, 40, 40), photo, grey, *(pixels(seed, 8 + seed, 20) for seed in range(9))]
    expected = [model.upscale(source) for source in sources]
    results = list(model.upscale_all(iter(sources)))
    assert len(results) == len(sources)
    for source, wanted, result in zip(sources, expected, results, strict=True):
        assert result.source is source
        assert result.error is None
        assert result.refined == 3
        assert type(result.image) is type(wanted)
        if isinstance(wanted, Image.Image):
            assert result.image.mode == wanted.mode
        pictures = (getattr(image, "rgb", image) for image in (result.image, wanted))
        np.testing.assert_array_equal(*map(np.asarray, pictures))


def test_what_cannot_be_kept_is_in_the_notes(recwarn, model):
    image = Image.fromarray(pixels(0)).convert("HSV")
    result = next(model.upscale_all([image]))
    assert result.notes == ["converted from HSV to RGB"]
    assert not recwarn.list


def test_an_image_that_fails_comes_in_its_place(tmp_path, model):
    Image.fromarray(pixels(0)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    sources = [tmp_path / "a.png", tmp_path / "cut.png", pixels(1).astype(float), pixels(2), tmp_path / "none.png"]

    def save(result):
        if result.source is sources[3]:
            raise OSError("the disk is full")
        saved.append(result)

    saved = []
    results = list(model.upscale_all([*sources, pixels(4)], save=save))
    errors = [(type(result.error), result.image is None) for result in results]
    assert errors == [
        (type(None), False),
        (ImageError, True),
        (InputError, True),
        (OSError, True),
        (ImageError, True),
        (type(None), False),
    ]
    assert [result.source is source for result, source in zip(results, sources, strict=False)] == [True] * 5
    assert saved == [results[0], results[5]]
    for i, part in [(1, "cut.png is damaged"), (2, "expected a uint8 "), (3, "disk is full"), (4, "not exist")]:
        assert part in str(results[i].error)


def test_reading_the_next_and_writing_the_one_before_overlap_computing():
    """The three wait for each other, so one after the other they would never end."""
    begun = {(step, i): threading.Event() for step in ("read", "compute", "write") for i in range(3)}

    def meet(step, i, *others):
        begun[step, i].set()
        return all(begun[other].wait(LONG) for other in others if other in begun)

    def read(i):
        return i, meet("read", i, ("compute", i - 1))

    def compute(loaded):
        i, met = loaded
        assert threading.current_thread() is threading.main_thread()
        return i, met and meet("compute", i, ("read", i + 1), ("write", i - 1))

    def write(computed):
        i, met = computed
        return met and meet("write", i, ("compute", i + 1))

    assert [outcome.value for outcome in overlap(range(3), read, compute, write)] == [True] * 3


def test_several_writers_write_at_once():
    barrier = threading.Barrier(3)

    def write(i):
        return barrier.wait(LONG) in range(3) and i

    assert [outcome.value for outcome in overlap(range(6), same, same, write, ahead=3, writers=3)] == list(range(6))


class Held:
    """Something whose life is watched."""

    alive: ClassVar = weakref.WeakSet()

    def __init__(self):
        self.alive.add(self)


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
@pytest.mark.parametrize("slow", ["read", "compute", "write"])
def test_no_more_is_held_than_asked_for(ahead, slow):
    taken, given, most, alive = [], [], [], []

    def sources():
        for i in range(12):
            taken.append(i)
            most.append(len(taken) - len(given))
            yield i

    def step(name, make):
        def run(_):
            if slow == name:
                time.sleep(0.004)
            alive.append(len(Held.alive))
            return make()

        return run

    for outcome in overlap(sources(), step("read", Held), step("compute", Held), step("write", Held), ahead):
        assert outcome.error is None
        given.append(outcome.source)
        del outcome
    assert given == taken == list(range(12))
    assert max(most) == ahead + 1
    # One thing for each image, and in the steps that run what they are given besides what they make of it.
    assert (0 if slow == "read" else ahead) <= max(alive) <= ahead + 3
    gc.collect()
    assert not Held.alive


def test_closing_early_begins_nothing_more():
    begun, release = [], threading.Event()

    def write(i):
        begun.append(i)
        assert i == 0 or release.wait(LONG)
        return i

    outcomes = overlap(iter(range(100)), same, same, write, ahead=4)
    assert next(outcomes).value == 0
    assert len(threads()) == 2
    threading.Timer(0.05, release.set).start()
    outcomes.close()
    assert not threads()
    assert begun in ([0], [0, 1])
    assert list(outcomes) == []


def test_a_loop_that_ends_early_leaves_no_thread(model):
    for result in model.upscale_all(pixels(seed) for seed in range(50)):
        assert result.error is None
        break
    assert not threads()


def test_an_error_of_the_sources_ends_it():
    def sources():
        yield 1
        raise LookupError("the list is gone")

    with pytest.raises(LookupError, match="the list is gone"):
        list(overlap(sources(), same, same, same))
    assert not threads()


def test_an_interrupt_while_computing_ends_what_has_begun_and_nothing_else():
    begun, ended, writing = [], [], threading.Event()

    def compute(i):
        if i == 2:
            assert writing.wait(LONG)
            signal.raise_signal(signal.SIGINT)
            time.sleep(LONG)
        return i

    def write(i):
        begun.append(i)
        if i == 1:
            writing.set()
            time.sleep(0.1)
        ended.append(i)

    started = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        closing(overlap(range(10), same, compute, write, ahead=4)) as outcomes,
    ):
        list(outcomes)
    assert time.monotonic() - started < LONG / 2
    assert not threads()
    assert begun == ended == [0, 1]


@pytest.mark.parametrize("step", ["waiting for reading", "waiting for writing"])
def test_an_interrupt_while_waiting(step):
    release = threading.Event()

    def wait_in(name):
        def run(i):
            if name == step:
                threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
                threading.Timer(0.2, release.set).start()
                assert release.wait(LONG)
            return i

        return run

    with pytest.raises(KeyboardInterrupt):
        list(overlap([1], wait_in("waiting for reading"), same, wait_in("waiting for writing")))
    assert release.is_set()
    assert not threads()


def test_nothing_is_written_after_an_interrupt_in_a_writer():
    begun = []

    def write(i):
        begun.append(i)
        if i == 1:
            raise KeyboardInterrupt
        return i

    outcomes = overlap(range(10), same, same, write, ahead=5)
    assert next(outcomes).value == 0
    with pytest.raises(KeyboardInterrupt):
        list(outcomes)
    assert begun == [0, 1]


@pytest.mark.parametrize("error", [OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("step", ["read", "compute"])
def test_where_memory_runs_out_it_is_tried_again_without_the_others(step, error):
    writing, tried = set(), []
    started, release = threading.Event(), threading.Event()

    def run(name):
        def attempt(i):
            if i in (1, 2) and name == step:
                tried.append(i)
                assert i != 1 or len(tried) > 1 or started.wait(LONG)
                if i == 2 or writing:
                    threading.Timer(0.05, release.set).start()
                    raise error(f"image {i} needs more memory")
            return i

        return attempt

    def write(i):
        writing.add(i)
        started.set()
        assert release.wait(LONG)
        writing.remove(i)
        return i

    outcomes = list(overlap(range(4), run("read"), run("compute"), write))
    assert [outcome.value for outcome in outcomes] == [0, 1, None, 3]
    assert type(outcomes[2].error) is error
    assert sorted(tried) in ([1, 1, 2], [1, 1, 2, 2])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"ahead": -1}, "0 or more, got -1"),
        ({"savers": 0}, "got 0"),
        ({"save": ["a.png"]}, "save is a function .* got list"),
    ],
)
def test_wrong_arguments_are_refused_at_once(model, arguments, part):
    with pytest.raises(InputError, match=part):
        model.upscale_all([], **arguments)


@pytest.mark.parametrize(
    "one", ["a.png", Path("a.png"), b"a.png", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), None, 3]
)
def test_one_image_in_place_of_several_is_refused(model, one):
    """Its letters, or its rows as grey images, would be upscaled."""
    with pytest.raises(InputError, match="put it in a list"):
        model.upscale_all(one)


def test_a_batch_of_arrays_is_several_images(model):
    assert [result.error for result in model.upscale_all(np.zeros((2, 4, 4, 3), np.uint8))] == [None, None]
