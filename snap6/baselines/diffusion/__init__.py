"""Models that learn to reverse a gradual noising of the image."""
