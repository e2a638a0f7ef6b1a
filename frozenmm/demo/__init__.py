"""The web demo: a page to upload a picture, type words, and see and download results (`tools/demo.py`)."""
