"""Warnings belong to the thread and to the line that they are about."""

import threading
import warnings

import pytest

from mga_kernels.notices import quiet, warn


def test_only_this_thread_is_quiet():
    inside, spoken = threading.Event(), threading.Event()

    def speak():
        inside.wait(60)
        warnings.warn("from another thread", stacklevel=1)
        spoken.set()

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        thread = threading.Thread(target=speak)
        thread.start()
        with quiet():
            warnings.warn("not shown", stacklevel=1)
            with quiet():
                warnings.warn("not shown", DeprecationWarning, stacklevel=1)
            inside.set()
            assert spoken.wait(60)
            warnings.warn("not shown either", RuntimeWarning, stacklevel=1)
        with pytest.raises(ZeroDivisionError), quiet():
            _ = 1 / 0
        warnings.warn("shown again", stacklevel=1)
        thread.join()
    assert [str(warning.message) for warning in shown] == ["from another thread", "shown again"]


def test_filters_of_others_stay_while_this_thread_is_quiet():
    with warnings.catch_warnings():
        with quiet():
            warnings.simplefilter("error", BytesWarning)
        with quiet(), pytest.warns(UserWarning, match="asked for within"):
            warnings.warn("asked for within", stacklevel=1)
        with pytest.raises(BytesWarning, match="as asked"):
            warnings.warn("as asked", BytesWarning, stacklevel=1)


def test_a_warning_stands_at_the_line_outside_of_the_package():
    with pytest.warns(UserWarning, match="here") as caught:
        warn("here")
    assert caught[0].filename == __file__
