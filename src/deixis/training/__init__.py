"""Losses, data and the resumable training loop."""
