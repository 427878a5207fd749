"""Layers that no single paper here is about, shared by several models."""
