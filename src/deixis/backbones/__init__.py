"""Stable Diffusion as a backbone: loading it, and reading features out of it."""
