"""Generative image models of every family, one file each, and the one loop that trains them."""
