"""Models that encode an image to a latent code and decode it again."""
