"""PASCAL VOC 2012 with background, and our words for the background."""
_base_ = '../../_base_/datasets/pascal_voc_21.py'

background = [
    'sky', 'wall', 'floor', 'ceiling', 'tree', 'grass', 'plant', 'road', 'pavement', 'ground', 'water', 'sea', 'sand',
    'mountain', 'rock', 'building', 'house', 'window', 'door', 'curtain', 'fence', 'shelf', 'desk', 'bed', 'lamp',
    'picture frame'
]
