"""A training that two processes share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from packs_made import make_pack
from test_three_step import CONFIG, configure, weights

from mga.training.run import Budget
from mga.training.three_step import ThreeStep

pytestmark = pytest.mark.usefixtures("few_colours")


def two_processes(code: str, *arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """What became of the code in two processes, joined as torchrun joins them: by a store that is there before them.

    After two minutes they end, and say where all their threads stood.
    """
    ending = "import faulthandler; faulthandler.dump_traceback_later(120, exit=True)"
    words = [sys.executable, "-c", f"{ending}\n{code}", *map(str, arguments)]
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    joined = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": socket.if_nameindex()[0][1],  # lo, whatever this machine is called
    }

    def one(rank: int) -> subprocess.CompletedProcess[str]:
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(words, env={**os.environ, **joined, **own}, **options)

    with ThreadPoolExecutor(2) as pool:
        return [*pool.map(one, range(2))]


JOIN = """
import torch
torch.distributed.init_process_group("gloo")
total = torch.ones(1)
torch.distributed.all_reduce(total)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
print(total.item())
"""
# With a look at one flat colour, as with `few_colours`.
TRAIN = """
import sys
from mga.cli import main
from mga.training import flat
flat.flat_colours = lambda: [(0, 128, 255)]
sys.exit(main(["train", *sys.argv[1:]]))
"""


def test_two_processes_end_with_the_weights_of_one(tmp_path: Path):
    make_pack(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG.format(folder=tmp_path))
    joined = two_processes(JOIN)
    if [done.stdout for done in joined] != ["2.0\n"] * 2:
        pytest.skip(f"PyTorch does not join two processes on this machine: {joined[0].stderr[-500:]}")
    alone = weights(ThreeStep(configure(tmp_path, out=f"'{tmp_path}/one'"), Budget()).run())
    for done in two_processes(TRAIN, tmp_path / "config.toml"):
        assert done.returncode == 0, done.stderr
    together = weights(tmp_path / "out/fsrcnn-x2.safetensors")
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=2e-5, msg=name)
