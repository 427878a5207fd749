"""Models with an exact likelihood, one pixel conditioned on those before it."""
