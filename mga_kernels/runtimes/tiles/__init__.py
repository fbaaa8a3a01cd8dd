"""Images for which memory is too small, cut into overlapping tiles."""
