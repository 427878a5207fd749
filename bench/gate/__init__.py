"""The regression gate: what a change did to speed, to work and to quality, and how sure that is; imports no torch."""
