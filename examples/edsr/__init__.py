"""A network from outside the package, in one folder: EDSR (Lim et al., CVPR workshops 2017), its baseline.

    MGA_NETWORKS=examples/edsr mga upscale photo.jpg -o large.png --model EDSR_Mx4.pth
    MGA_NETWORKS=examples/edsr mga convert EDSR_Mx4.pth -o fast.safetensors --images photos/ --split 12+4

With it published files are recognised, run in convolutions of our own, and are cut in two; docs/extending.md says what
each field is for, docs/own_network.md what halves must do.
"""

from mga_kernels.networks import Network, register_network
from mga_kernels.networks.divided import Layout, channels_of_state

from .network import CHANNELS, BaseNet, RefineNet

NETWORK = register_network(
    Network(
        "edsr",
        BaseNet,
        RefineNet,
        **channels_of_state(2, CHANNELS),
        split=(12, 4),
        value_range=255.0,
        working_values=2400,
        published=f"{__name__}.published:PUBLISHED",
        layout=Layout("conv_first", r"body\.", "conv_last", ("conv2",)),
        cpu=f"{__name__}.cpu:EdsrWeights",
    )
)
