"""FC-CLIP: mask generator, mask classifier and post-processing, joined by one segmentor."""
