"""One HTML page that compares an accelerated model with the network that it was made from, on the user's images."""

from .write import write_report

__all__ = ["write_report"]
