"""Files of what was found out on this machine."""

from mga_kernels.system import kept


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("MGA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept.cache_file("timings.json") == tmp_path / "mga_kernels" / "timings.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert kept.cache_file("timings.json") == tmp_path / "home" / ".cache" / "mga_kernels" / "timings.json"
