"""Datasets as published, one file each."""
