"""Memory limits read from a made-up /proc and control-group tree."""

import pytest
from control_groups import write_groups

from mga_kernels.errors import OutOfMemoryError
from mga_kernels.system import memory


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_address_space", lambda proc: 1 << 60)

    def build(group, files):
        proc, groups = write_groups(tmp_path, group, files)
        (proc / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:     800 kB\n")
        return memory.available_memory(proc, groups)

    return build


def test_memory_of_the_system(tree):
    assert tree("0::/\n", {"memory.max": "max\n", "memory.current": "5000\n"}) == 800 * 1024


def test_tightest_group_of_version_2_counts_and_cache_does_not(tree):
    files = {
        "a/memory.max": "300000\n",
        "a/memory.current": "100000\n",
        "a/memory.stat": "anon 60000\ninactive_file 40000\n",
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "90000\n",
    }
    assert tree("0::/a/b\n", files) == 300000 - 60000


def test_container_whose_group_path_is_the_hosts(tree):
    assert tree("0::/docker/123\n", {"memory.max": "70000\n", "memory.current": "20000\n"}) == 50000


def test_group_of_version_1(tree):
    files = {
        "memory/g/memory.limit_in_bytes": "500000\n",
        "memory/g/memory.usage_in_bytes": "200000\n",
        "memory/g/memory.stat": "cache 1\ntotal_inactive_file 50000\n",
    }
    assert tree("9:cpu:/g\n4:memory:/g\n", files) == 350000


def test_usage_above_the_limit_is_no_memory_at_all(tree):
    assert tree("0::/\n", {"memory.max": "10\n", "memory.current": "20\n"}) == 0


def test_real_machine_and_address_space_limit(monkeypatch):
    resource = pytest.importorskip("resource", reason="only Unix limits the address space")
    free = memory.available_memory()
    assert 1 << 20 < free < 1 << 50
    used = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) * 1024
    monkeypatch.setattr(resource, "getrlimit", lambda which: (used + (64 << 20), -1))
    assert abs(memory.available_memory() - (64 << 20)) < 32 << 20


def test_require_memory(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 3 << 29)
    memory.require_memory(3 << 29, "this", "do that")
    with pytest.raises(OutOfMemoryError, match=r"^this needs about 2.0 GiB .* and 1.5 GiB are available; do that$"):
        memory.require_memory(1 << 31, "this", "do that")
    monkeypatch.setattr(memory, "available_memory", lambda: 700)
    with pytest.raises(OutOfMemoryError, match=r"needs about 3\.0 MiB of memory and 0\.7 KiB are available"):
        memory.require_memory(3 << 20, "this", "do that")
