"""Simple fits that a deep model must beat, and the real images that bound every score."""
