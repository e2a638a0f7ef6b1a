"""Families of frozen image encoders, one module each."""
