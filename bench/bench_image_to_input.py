import pytest
from workloads import image_to_input


@pytest.mark.parametrize("case", ["960x540"])
def test_image_to_input(run, case):
    run(image_to_input, case)
