"""Fusioner: a transformer that joins any frozen image encoder with any frozen text encoder."""
