"""Invertible maps between images and a simple base density."""
