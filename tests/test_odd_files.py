"""Files of networks that people share with one fault each: refused in one sentence, within a little memory and time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from network_zoo import one_thread
from odd_files import BYTES, FAULTS, GRAPHS, STATES, graph, pth

from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.errors import CheckpointError

MEMORY = 64 << 20  # bytes by which refusing any of them may raise the memory of the process
SECONDS = 10  # of the processor, that one of them may take
KINDS = ("rrdbnet", "compact", "span")
CLEAR = Path("/proc/self/clear_refs")

pytestmark = pytest.mark.filterwarnings("ignore::mga_kernels.errors.CheckpointNote")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Within it no more memory and time may be taken; without /proc only time is looked at."""
    if CLEAR.exists():
        CLEAR.write_text("5")  # the peak becomes what is in use now
    before, started = _status("VmRSS") if CLEAR.exists() else 0, time.process_time()
    yield
    assert time.process_time() - started < SECONDS, what
    if CLEAR.exists():
        assert _status("VmHWM") - before < MEMORY, what


def refused(path: Path, fault: str) -> str:
    """What is said of it."""
    with bounded(fault), pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    said = str(caught.value).replace("...", "")
    assert said.startswith((f"checkpoint: {path}", f"model: {path}")), said
    reason = said.partition(str(path))[2]
    assert reason.isprintable(), said
    assert re.search(r"\w{3}", reason), said
    assert not re.search(r"\.\s|Traceback|Error\b(?! while| code)", reason), said
    assert len(reason) < 500, said
    return said


def test_there_are_hundreds():
    assert len(STATES) * (len(FAULTS) + len(BYTES)) + len(KINDS) * len(GRAPHS) > 500


@pytest.mark.parametrize("name", STATES)
def test_state_dicts(tmp_path, name):
    path = tmp_path / "net.pth"
    path.write_bytes(pth(STATES[name]()))
    with one_thread():
        load_checkpoint(path)  # what they are made of is taken
        for fault, change in FAULTS.items():
            path.write_bytes(pth(change(STATES[name]())))
            refused(path, fault)


@pytest.mark.parametrize("name", STATES)
def test_files_of_tensors(tmp_path, name):
    for fault, change in BYTES.items():
        path = tmp_path / ("net.pth" if ".pth" in fault else "net.safetensors")
        path.write_bytes(change(STATES[name]()))
        refused(path, fault)


@pytest.mark.parametrize("kind", KINDS)
def test_graphs(tmp_path, kind):
    text, data = graph(tmp_path, kind)
    path, weights = tmp_path / "net.param", tmp_path / "net.bin"
    load_checkpoint(tmp_path / f"{kind}.param")
    for fault, change in GRAPHS.items():
        changed, weights_of_it = change(text, data)
        path.write_text(changed)
        weights.unlink(missing_ok=True)
        if weights_of_it is not None:
            weights.write_bytes(weights_of_it)
        refused(path, fault)
