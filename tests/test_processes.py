"""Models that are pickled and copied, and child processes made by fork beside an image that is being upscaled.

What may hang is run in a process of its own, which is ended when it takes too long.
"""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from forks import LONG
from network_zoo import EXAMPLE, random_model
from tiny_model import write_tiny_model

from mga_kernels import MaskGuidedSR
from mga_kernels.networks import WholeConfig, WholeNetwork
from mga_kernels.networks.amount import Amount
from mga_kernels.runtimes.pytorch.modules import ModulePatches
from mga_kernels.system.threads import Lock

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def pixels(seed: int = 0, height: int = 20, width: int = 28) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_torch(model):
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


WAYS = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch": by_torch,
}


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
def test_a_model_can_be_pickled_and_copied(way, dtype):
    settings = {"device": "cpu", "dtype": dtype, "fraction": 0.5, "memory": "1GiB"}
    model = MaskGuidedSR(random_model("fsrcnn", 2), **settings)
    image = torch.from_numpy(pixels()).permute(2, 0, 1)[None] / 255
    expected, values = model.upscale(pixels()), model(image)
    made = WAYS[way](model)
    assert (made.config, made.amount, made.memory, made.mode) == (model.config, model.amount, 2**30, "masked")
    assert made.info() == model.info() | {"prepared": []}
    assert (made.settings, made.dtype, made.device) == (model.settings, model.dtype, model.device)
    assert np.array_equal(made.upscale(pixels()), expected)
    assert torch.equal(made(image), values)
    for parameter in made.model.parameters():
        parameter.zero_()
    assert np.array_equal(model.upscale(pixels()), expected), "they share nothing"
    assert np.array_equal(WAYS[way](model).upscale(pixels()), expected)


@pytest.mark.parametrize("name", ["pan", "rfdn", "srresnet", "whole"])
def test_every_network_can_be_pickled(name):
    network = WholeNetwork(WholeConfig("msrresnet", 2, 2)) if name == "whole" else random_model(name, 2)
    model = MaskGuidedSR(network, device="cpu")
    made = pickle.loads(pickle.dumps(model))
    assert np.array_equal(made.upscale(pixels()), model.upscale(pixels()))
    image = torch.from_numpy(pixels()).permute(2, 0, 1)[None] / 255
    assert torch.equal(made(image), model(image))


def test_a_copy_is_made_while_the_model_runs(monkeypatch):
    model = MaskGuidedSR(random_model("fsrcnn", 2), device="cpu", runtime="pytorch")
    expected = model.upscale(pixels())
    copies, refine = [], ModulePatches.refine

    def copying(*arguments):
        if not copies:
            copies.append(None)
            copies[0] = copy.deepcopy(model)
        return refine(*arguments)

    monkeypatch.setattr(ModulePatches, "refine", copying)
    assert np.array_equal(model.upscale(pixels()), expected)
    assert np.array_equal(copies[0].upscale(pixels()), expected)


def test_what_was_learnt_about_the_network_is_kept():
    network = random_model("fsrcnn", 2)
    network.base.first_part[0].weight.mul_(2.0**17)
    network.base.mid_part[0].weight.div_(2.0**17)
    model = MaskGuidedSR(network, device="cpu", dtype="float16", runtime="pytorch")
    with pytest.warns(UserWarning, match="not finite in float16"):
        expected = model.upscale(pixels())
    made = pickle.loads(pickle.dumps(model))
    assert (made.dtype, made.info()["why not"]) == (model.dtype, model.info()["why not"])
    assert np.array_equal(made.upscale(pixels()), expected)


class Named(MaskGuidedSR):
    """A class of a user's, with something of its own."""

    name = "none"


def test_a_subclass_keeps_what_it_has():
    model = Named(random_model("fsrcnn", 2), device="cpu")
    model.name = "mine"
    made = pickle.loads(pickle.dumps(model))
    assert (type(made), made.name) == (Named, "mine")


@pytest.fixture
def run(forks):
    """run(code, argument.., NAME=value) is what Python code prints in a process of its own with two threads."""
    return forks.run


def test_a_network_of_ones_own_is_found_again_in_another_process(run, tmp_path):
    write = """
    import pickle, sys, numpy as np
    from mga_kernels import MaskGuidedSR
    from mga_kernels.networks import MaskGuidedNetwork, ModelConfig
    model = MaskGuidedSR(MaskGuidedNetwork(ModelConfig("residual", 2, split=(1, 1))), device="cpu")
    pickle.dump(model, open(sys.argv[1], "wb"))
    print(model.upscale(np.full((9, 9, 3), 77, np.uint8)).sum())
    """
    read = """
    import pickle, sys, numpy as np
    print(pickle.load(open(sys.argv[1], "rb")).upscale(np.full((9, 9, 3), 77, np.uint8)).sum())
    """
    named = {"MGA_NETWORKS": str(EXAMPLE)}
    assert run(write, tmp_path / "model", **named) == run(read, tmp_path / "model", **named)


def test_a_model_goes_to_processes_that_are_spawned(tmp_path):
    file, script = write_tiny_model(tmp_path / "tiny.safetensors"), tmp_path / "spawn.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, sys
        import numpy as np
        from mga_kernels import MaskGuidedSR

        def work(model, image):
            return model.upscale(image)

        if __name__ == "__main__":
            model = MaskGuidedSR.from_pretrained(sys.argv[1], device="cpu")
            image = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result = pool.apply_async(work, (model, image)).get(200)
            assert np.array_equal(result, model.upscale(image))
            assert not any(p.is_shared() for p in model.model.parameters())
            print("equal")
        """)
    )
    process = subprocess.run([sys.executable, script, file], capture_output=True, text=True, timeout=LONG)
    assert process.stdout == "equal\n", process.stderr[-2000:]


CHILD = """
import os, signal, sys, threading, warnings
import numpy as np
import torch
from mga_kernels import MaskGuidedSR
from mga_kernels.runtimes.pytorch.modules import ModulePatches

warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which is what this is about
torch.set_num_threads(2)
model = MaskGuidedSR.from_pretrained(sys.argv[1], device="cpu", runtime="pytorch")
image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that hangs is ended
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}"


def upscale():
    assert torch.get_num_threads() == 2
    assert np.array_equal(model.upscale(image), expected)
    assert model.info()["prepared"] == ["48x48, K = 3"]


"""


@needs_fork
@pytest.mark.parametrize("runtime", ["main", "other"])
def test_a_child_made_beside_an_image_can_upscale(run, tmp_path, runtime):
    """The thread that forks is the one that computed, whose OpenMP threads the child lacks, or another one."""
    code = """
    expected = model.upscale(image)
    begun, ended = threading.Event(), threading.Event()
    refine, parent = ModulePatches.refine, os.getpid()

    def slow(*arguments):
        if os.getpid() == parent and threading.current_thread() is not threading.main_thread():
            begun.set()
            assert ended.wait(100)
        return refine(*arguments)

    ModulePatches.refine = slow
    other = threading.Thread(target=model.upscale, args=(image,))
    other.start()
    assert begun.wait(100)
    if sys.argv[2] == "main":
        child(upscale)
    else:
        forking = threading.Thread(target=child, args=(upscale,))
        forking.start()
        forking.join()
    ended.set()
    other.join()
    upscale()
    child(upscale)
    print("done")
    """
    file = write_tiny_model(tmp_path / "tiny.safetensors")
    assert run(CHILD + textwrap.dedent(code), file, runtime) == "done\n"


@needs_fork
def test_children_of_libraries_can_upscale_too(run, tmp_path):
    """A pool of processes, and a DataLoader that another thread starts, while images are being upscaled."""
    code = """
    import multiprocessing
    from torch.utils.data import DataLoader, Dataset

    expected = model.upscale(image)

    class Upscaled(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return model.upscale(image)

    def load():
        for batch in DataLoader(Upscaled(), batch_size=1, num_workers=2, multiprocessing_context="fork", timeout=60):
            assert np.array_equal(batch[0].numpy(), expected)
        loaded.append(True)

    loaded = []
    loading = threading.Thread(target=load)
    loading.start()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = [pool.apply_async(model.upscale, (image,)) for _ in range(4)]
        while loading.is_alive():
            assert np.array_equal(model.upscale(image), expected)
        loading.join()
        assert all(np.array_equal(result.get(60), expected) for result in results)
    assert loaded
    print("done")
    """
    file = write_tiny_model(tmp_path / "tiny.safetensors")
    assert run(CHILD + textwrap.dedent(code), file) == "done\n"


@needs_fork
def test_every_lock_of_the_package_is_free_in_a_child(run, tmp_path):
    """Another thread holds them all while the child is made, which then does what needs them."""
    code = """
    from mga_kernels.engine import choice, timings
    from mga_kernels.system import allocator
    from mga_kernels.images import opening
    from mga_kernels.system.threads import Lock, put_right_after_fork
    from PIL import Image
    Image.fromarray(image).save(sys.argv[2])
    expected = model.upscale(image)
    held, free = threading.Event(), threading.Event()
    locks = [allocator._lock, timings.TIMINGS._lock, model._lock, opening._lock]

    class Owner:  # as the runner, which frees buffers that the allocator's lock guards
        def __init__(self):
            self.lock = Lock()
            locks.append(self.lock)
            put_right_after_fork(self)

        def after_fork(self):
            with self.lock:
                pass

    owners = [Owner() for _ in range(20)]

    def hold():
        for lock in locks:
            lock.__enter__()
        held.set()
        free.wait(100)
        for lock in reversed(locks):
            lock.__exit__(None, None, None)

    def work():
        upscale()
        list(model.upscale_all([sys.argv[2], image]))
        with opening.limit_off():
            pass
        assert timings.TIMINGS.get({}, ()) is None
        allocator.keep_memory(image.view(type("Array", (np.ndarray,), {})))

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait(100)
    child(work)
    free.set()
    holding.join()
    print("done")
    """
    file = write_tiny_model(tmp_path / "tiny.safetensors")
    assert run(CHILD + textwrap.dedent(code), file, tmp_path / "image.png") == "done\n"


@needs_fork
def test_images_that_were_begun_before_the_fork_are_the_parents(run, tmp_path):
    code = """
    results = model.upscale_all([image] * 8)
    next(results)
    def work():
        try:
            list(results)
        except RuntimeError as error:
            assert "process" in str(error)
        else:
            raise AssertionError("these are read by threads of the parent")
    child(work)
    assert len(list(results)) == 7
    print("done")
    """
    file = write_tiny_model(tmp_path / "tiny.safetensors")
    assert run(CHILD + textwrap.dedent(code), file) == "done\n"


def test_a_lock_that_the_forking_thread_holds_stays_its_own():
    mine, others = Lock(), Lock()
    holder = threading.Thread(target=others.__enter__)
    holder.start()
    holder.join()
    with mine, mine:
        for lock in (mine, others):
            lock.after_fork()
        with mine:
            pass
    for lock in (mine, others):
        other = threading.Thread(target=lambda lock=lock: lock.__enter__() and lock.__exit__())
        other.start()
        other.join(60)
        assert not other.is_alive()


def test_settings_without_a_value_are_none():
    assert pickle.loads(pickle.dumps(Amount(k=3))) == Amount(k=3)
