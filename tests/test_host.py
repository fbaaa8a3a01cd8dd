import pytest

from mga_kernels import _native

host = _native.host()


def test_cpu_features_agree_with_the_kernel():
    features = host.cpu_features()
    assert features
    assert all(isinstance(value, bool) for value in features.values())
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split(":")[1].split() for line in file if line.startswith("flags")), None)
    except FileNotFoundError:
        flags = None
    if flags is None:
        pytest.skip("no flags in /proc/cpuinfo")
    for name in ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"):
        assert features[name] == (name in flags), name
