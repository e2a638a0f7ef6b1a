"""Models as one graph for other runtimes: a picture in, results out."""
