"""Several results folders side by side: what changed beyond noise, and who leads; records only, never torch."""
