"""A folder for each network, whose ``__init__`` ends in its ``NETWORK``; ``mga_kernels.catalogue`` lists them.

    network.py    Base-Net and Refine-Net
    published.py  names of tensors in published files, and what is read from them
    divided.py    the published network cut in two without loss
    cpu.py        as chains of our convolutions

A folder has those files that there is something for; docs/extending.md shows how one is added.
"""
