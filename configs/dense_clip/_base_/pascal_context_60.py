"""PASCAL Context with 59 classes and background, label 0, in mmseg's layout (its tools/dataset_converters)."""
_base_ = '../../_base_/semantic_maps.py'

data_root = 'data/VOCdevkit/VOC2010/'
vocabulary = [
    'background', 'aeroplane', 'bag', 'bed', 'bedclothes', 'bench', 'bicycle', 'bird', 'boat', 'book', 'bottle',
    'building', 'bus', 'cabinet', 'car', 'cat', 'ceiling', 'chair', 'cloth', 'computer case', 'cow', 'cup', 'curtain',
    'dog', 'door', 'fence', 'floor', 'flower', 'food', 'grass', 'ground', 'horse', 'keyboard', 'lamp', 'motorbike',
    'mountain', 'mouse', 'person', 'plate', 'platform', 'pottedplant', 'street', 'rock', 'sheep', 'shelves',
    'sidewalk', 'sign', 'sky', 'snow', 'sofa', 'diningtable', 'track', 'train', 'tree', 'truck', 'tvmonitor', 'wall',
    'water', 'window', 'wood piece'
]
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='ImageSets/SegmentationContext/val.txt',
        data_prefix=dict(img='JPEGImages/', seg='SegmentationClassContext/'),
        vocabulary=vocabulary))
test_evaluator = [
    dict(type='frozenmm.SemanticIoU', vocabulary=vocabulary, train_vocabulary=_base_.train_vocabulary)
]
