"""Masks of phrases from the attention maps of a frozen multimodal model (F-LMM)."""
