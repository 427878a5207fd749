"""Models trained against a discriminator; they draw samples and have no likelihood."""
