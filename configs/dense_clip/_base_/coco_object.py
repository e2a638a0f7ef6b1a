"""COCO-Object: the 80 things of COCO and background, label 0; val2017.

The maps `*_instanceTrainIds.png` are made from those of COCO-Stuff 164k by the converter in SCLIP's repository.
"""
_base_ = '../../_base_/semantic_maps.py'

data_root = 'data/coco_object/'
vocabulary = [
    'background', 'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep',
    'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella', 'handbag', 'tie', 'suitcase', 'frisbee',
    'skis', 'snowboard', 'sports ball', 'kite', 'baseball bat', 'baseball glove', 'skateboard', 'surfboard',
    'tennis racket', 'bottle', 'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich',
    'orange fruit', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant', 'bed',
    'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'tv remote', 'keyboard', 'cell phone', 'microwave', 'oven',
    'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissor', 'teddy bear', 'hair drier', 'toothbrush'
]
# our words
background = [
    'sky', 'wall', 'floor', 'ceiling', 'tree', 'grass', 'road', 'pavement', 'ground', 'water', 'sea', 'sand',
    'mountain', 'building', 'window', 'fence'
]
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img='images/val2017/', seg='annotations/val2017/'),
        seg_suffix='_instanceTrainIds.png',
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
