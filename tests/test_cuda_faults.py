"""That the emulation finds faults: a kernel with one line left out no longer passes the check that it passes whole."""

import ctypes
import os
import signal

import pytest
import torch
from cuda_emulated import load, objects
from cuda_planted import FAULTS, acting, planted_library

ORDERS = ("fwd", "rev", "7")
WHOLE = "nothing left out"


def look_for_faults(path: str) -> None:
    """Prints for every fault the status with which a check of it in all orders ends a process, and first for none."""
    torch.set_num_threads(1)  # other threads would be missing in the processes that are forked
    libc = ctypes.CDLL(None)
    library = load(path)

    def status(checks) -> int:
        for order in ORDERS:
            libc.setenv(b"EMU_ORDER", order.encode(), 1)
            try:
                for check in checks:
                    check(library)
            except AssertionError:
                return 3
        return 0

    def look(checks) -> None:
        if (child := os.fork()) == 0:
            os._exit(status(checks))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

    look({fault.check for fault in FAULTS.values()})
    for name, fault in FAULTS.items():
        with acting(FAULTS, name):
            look([fault.check])


@pytest.fixture(scope="module")
def statuses(forks) -> dict[str, int]:
    """name of a fault -> how the check of it ended; all in one process apart from this one."""
    library = planted_library(FAULTS, objects())
    code = "import sys, test_cuda_faults; test_cuda_faults.look_for_faults(*sys.argv[1:])"
    return dict(zip([WHOLE, *FAULTS], map(int, forks.run(code, library).split()), strict=True))


def test_without_a_fault_the_checks_pass(statuses):
    assert statuses[WHOLE] == 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_missing_barrier_is_found(name, statuses):
    # A rank that was counted wrong may also lead outside the memory.
    assert statuses[name] in (3, -signal.SIGSEGV, -signal.SIGABRT)
