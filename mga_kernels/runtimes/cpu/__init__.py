"""Convolutions of our own on a CPU: the stages of networks, how they are stored, and plans made of them."""
