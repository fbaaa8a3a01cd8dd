"""CUDA graphs on the CPU: what is captured is recorded operator by operator, and replayed on the same tensors.

It shows what a GPU would show of capturing without its kernels: that a plan holds nothing which cannot be captured,
computes anew from its input at every replay, and what is done where capturing fails, which it does as PyTorch 2.11.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from capture_guard import CaptureGuard
from torch import Tensor
from torch.utils._pytree import tree_leaves


class Recorder(CaptureGuard):
    """Every call that is no view, with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, list[Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.calls.append((func, args, kwargs or {}, [r for r in tree_leaves(result) if isinstance(r, Tensor)]))
        return result


class FakeGraph:
    """In place of torch.cuda.CUDAGraph."""

    captures = 0

    def __init__(self) -> None:
        self.recorder = Recorder()

    def replay(self) -> None:
        for func, args, kwargs, results in self.recorder.calls:
            found = [r for r in tree_leaves(func(*args, **kwargs)) if isinstance(r, Tensor)]
            for old, new in zip(results, found, strict=True):
                if old.data_ptr() != new.data_ptr() and old.numel():
                    old.copy_(new)


class FakeCapture:
    """In place of torch.cuda.graph; an error within is replaced by another when the capture ends, as in 2.11."""

    def __init__(self, graph: FakeGraph, pool: Any, stream: Any, capture_error_mode: str):
        self.graph = graph
        assert capture_error_mode == "thread_local"

    def __enter__(self) -> None:
        FakeGraph.captures += 1
        self.graph.recorder.__enter__()

    def __exit__(self, kind, error, traceback) -> None:
        self.graph.recorder.__exit__(kind, error, traceback)
        if error is not None:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


@pytest.fixture
def fake_graphs(monkeypatch: pytest.MonkeyPatch) -> type[FakeGraph]:
    """A planner on the CPU whose ``wants_graph`` is set captures; ``captures`` counts. No capture has failed yet."""
    from mga_kernels.runtimes.cuda import capture

    monkeypatch.setattr(capture, "_failed", [])
    monkeypatch.setattr(FakeGraph, "captures", 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", FakeCapture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    return FakeGraph
