"""What is set of a conversion: by a file, by words of the command, and what none can have; what images are known by."""

from __future__ import annotations

import numpy as np
import pytest

from mga.conversion.material import fingerprint
from mga.conversion.settings import load_training
from mga_kernels.errors import InputError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"crop": "7"}, "crop must be 8 or more, twice the patch size, got 7"),
        ({"batch": "0"}, "batch is 1 or more"),
        ({"batch": "2.5"}, r"config\.batch must be of type int, got 2\.5"),
        ({"ema_decay": "1"}, "ema_decay lies between 0 and 1"),
        ({"rates.base": "0"}, r"rates\.base = 0\.0 is none; steps are base, joint, refine, mask"),
        ({"rates.dense": "1e-3"}, r"rates\.dense = 0\.001 is none"),
        ({"speed": "1"}, r"unknown setting config\.speed"),
    ],
)
def test_settings_that_no_training_can_have(overrides, message):
    with pytest.raises(InputError, match=f"convert: .*{message}"):
        load_training(None, overrides, 4)


def test_settings_come_from_a_file_and_are_overridden(tmp_path):
    (tmp_path / "fit.toml").write_text("crop = 32\nbatch = 8\n[rates]\nmask = 1e-3\n")
    found = load_training(tmp_path / "fit.toml", {"batch": "2", "rates.base": "0.5"}, 4)
    assert (found.crop, found.batch, found.rate("mask"), found.rate("base"), found.rate("joint")) == (
        32,
        2,
        1e-3,
        0.5,
        6e-4,
    )
    assert found.changed() == {"crop": 32, "batch": 2, "rates.mask": 1e-3, "rates.base": 0.5}
    assert load_training(None, {}, 8).changed() == {}


def test_images_count_by_all_their_pixels():
    hr, lr = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    assert fingerprint([[(hr, lr)]]) == fingerprint([[(hr.copy(), lr)]])
    assert fingerprint([[(hr, lr)]]) != fingerprint([[(hr + 1, lr)]])
    assert fingerprint([[(hr, lr)]]) != fingerprint([[(hr, lr + 1)]])
