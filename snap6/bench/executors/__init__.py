"""Executors: where the processes of a matrix run."""
