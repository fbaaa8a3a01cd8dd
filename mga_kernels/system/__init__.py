"""The machine under it: memory, threads and processes, files that appear whole."""
