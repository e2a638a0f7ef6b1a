"""Words on photographs from two frozen opinions per cell: classes that ImageNet taught, and a small trained head."""
