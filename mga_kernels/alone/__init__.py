"""Float maps without PyTorch, whose import takes longer than a photograph does.

What a network is made of is found out once, with PyTorch (``runtimes.cpu.programs``), and kept as a program: its
layers, their packed weights, and what memory they need. No file here imports PyTorch.
"""
