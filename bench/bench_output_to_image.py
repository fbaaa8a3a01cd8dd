import pytest
from workloads import output_to_image


@pytest.mark.parametrize("case", ["channels-last", "planar"])
def test_output_to_image(run, case):
    run(output_to_image, case)
