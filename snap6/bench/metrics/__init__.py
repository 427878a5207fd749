"""Metrics: each names itself, says why it cannot be taken, or returns measurements with their protocol."""
