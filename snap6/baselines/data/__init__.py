"""Data sets as uint8 tensors with a known number of levels, and the likelihood's preprocessing."""
