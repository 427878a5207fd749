"""The harness: trains, measures and compares generative image models, and writes the trilemma report."""
