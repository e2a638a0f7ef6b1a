"""Families of frozen text encoders, one module each."""
