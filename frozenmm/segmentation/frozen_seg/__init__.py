"""FrozenSeg: FC-CLIP with SAM's features in the decoder and SAM's masks in the semantic result."""
