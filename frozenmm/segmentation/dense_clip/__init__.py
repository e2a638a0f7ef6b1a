"""Training-free segmentation by words: a frozen tower whose last block is changed, cosines with text, a label rule."""
