"""The networks of the package, a line each. No other file in it names them.

A name is that of a folder of ``architectures``, whose ``NETWORK`` is made when it is asked for.
"""

from __future__ import annotations

ARCHITECTURES = (
    "fsrcnn",
    "pan",
    "rfdn",
    "srresnet",
    "rcan",
    "imdn",
    "msrresnet",
    "rrdbnet",
    "compact",
    "span",
    "edsr",
)
SMALL = "compact"  # makes the coarse image where a published network refines regions
FOLDER = f"{__package__}.architectures"
