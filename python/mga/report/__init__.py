"""One HTML page that compares an accelerated model with the network that it was made from, on the user's images."""

from .write import check_page, write_report

__all__ = ["check_page", "write_report"]
