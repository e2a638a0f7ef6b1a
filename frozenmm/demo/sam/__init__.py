"""A small model in the place of SAM: masks from points and boxes, trained on painted scenes."""
