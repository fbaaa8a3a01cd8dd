"""What a caller has set for the whole of PyTorch must not change what is computed here, nor stick to the results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

AUTOCASTS = ("cpu", "cuda")
CPU = torch.device("cpu")


@contextmanager
def ordinary() -> Iterator[None]:
    """Within it, or a function decorated with it, tensors are ordinary ones and no gradient is recorded.

    Results can be used in place, in a loss and by other threads, also where the caller is in ``inference_mode``, and
    what a plan keeps from one image to the next does not depend on the mode of the first. Autocast and a default device
    of the caller have no effect. A default dtype cannot be undone for one thread alone, so code that runs within this
    names the dtype of all that it makes.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in AUTOCASTS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        yield
