"""Commands of bench/gpu.py end with all that they started, and the build is told what machine it is on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def gpu_process(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_process

    return gpu_process


# Starts a process that would write its number to a file, say something, and hold this one's output open for a minute.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=len(sys.argv) > 3)
open(sys.argv[1], "w").write(str(child.pid))
print("started", flush=True)
time.sleep(float(sys.argv[2]))
"""


def lives(pid: int) -> bool:
    """Whether a process is there and is no zombie that waits for being read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def gone(number: Path) -> bool:
    until = time.monotonic() + 5
    while lives(int(number.read_text())) and time.monotonic() < until:
        time.sleep(0.02)
    return not lives(int(number.read_text()))


def test_at_the_limit_all_ends_that_a_command_started(gpu_process, tmp_path):
    started = time.monotonic()
    with pytest.raises(gpu_process.Stopped, match=r"stopped after 1 s: started") as stopped:
        gpu_process.run([sys.executable, "-c", PARENT, str(tmp_path / "pid"), "60"], 1)
    assert time.monotonic() - started < 5
    assert gone(tmp_path / "pid")
    assert stopped.value.last == "started"


def test_nothing_is_left_when_a_command_ends(gpu_process, tmp_path):
    """It would take the GPU's time while the next command is timed."""
    started = time.monotonic()
    assert gpu_process.run([sys.executable, "-c", PARENT, str(tmp_path / "pid"), "0"], 30) == "started\n"
    assert time.monotonic() - started < 10
    assert gone(tmp_path / "pid")


def test_who_left_the_group_holds_nobody_up(gpu_process, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_process, "LAST_WORDS", 0.5)
    started = time.monotonic()
    with pytest.raises(gpu_process.Stopped):
        gpu_process.run([sys.executable, "-c", PARENT, str(tmp_path / "pid"), "60", "apart"], 1)
    assert time.monotonic() - started < 5
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_what_is_started_has_a_group_of_its_own_in_the_same_session(gpu_process):
    """A killed script ends nothing: what it has started is left where whoever ends its session reaches it."""
    code = "import os; print(os.getpgid(0) == os.getpid(), os.getsid(0))"
    assert gpu_process.run([sys.executable, "-c", code], 30).split() == ["True", str(os.getsid(0))]


def test_who_is_told_to_end_ends_what_it_started(tmp_path):
    """``timeout`` sends SIGTERM to the script alone."""
    code = "import gpu_process as g, sys; g.end_on_sigterm(); g.run([sys.executable, '-c', *sys.argv[1:]], 60)"
    command = [sys.executable, "-c", code, PARENT, str(tmp_path / "pid"), "60"]
    process = subprocess.Popen(command, cwd=BENCH, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    process.stdout.close()
    assert gone(tmp_path / "pid")


def test_a_command_that_fails_says_how(gpu_process):
    with pytest.raises(gpu_process.StageFailed, match="ended with status 3: too bad"):
        gpu_process.run([sys.executable, "-c", "print('too bad'); raise SystemExit(3)"], 30)


def test_a_copy_without_history_is_told_its_commit(gpu_process, monkeypatch):
    monkeypatch.setenv("MGA_COMMIT", "0123456789abcdef")
    assert gpu_process.stamp("cpu")["commit"] == "0123456789abcdef"


def test_the_build_is_for_the_gpus_at_hand_and_by_the_nvcc_that_is_found(gpu_process, monkeypatch, tmp_path):
    import torch

    for name in ("bin/nvcc", "include/cuda_runtime.h"):
        (tmp_path / "cuda-13" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cuda-13" / name).touch(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").symlink_to(tmp_path / "cuda-13/bin/nvcc")
    for name in ("CUDA_HOME", "CUDA_PATH", "MGA_CUDA_ARCHS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    capabilities = [(9, 0), (12, 0), (9, 0)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device])
    told = {"MGA_CUDA": "1", "CUDA_HOME": str(tmp_path / "cuda-13"), "MGA_CUDA_ARCHS": "90;120"}
    assert gpu_process.build_environment() == told
    monkeypatch.setenv("MGA_CUDA_ARCHS", "80")  # of who calls
    assert "MGA_CUDA_ARCHS" not in gpu_process.build_environment()
