"""COCO-20i fold 0 on coco_mini (138 COCO images): seen classes in training, all classes at test, unseen ones apart."""
_base_ = 'small_episodes.py'

fold = 0
coco = dict(type='frozenmm.COCO20iDataset', fold=fold, data_root='data/coco_mini')
train_dataloader = dict(
    dataset=dict(
        coco,
        split='train',
        maps=dict(annotations='annotations/panoptic_train.json', panoptic_folder='panoptic_train', min_pixels=200),
        data_prefix=dict(img_path='images/train', seg_map_path='semantic/train')))
val_dataloader = dict(
    dataset=dict(
        coco,
        split='all',
        maps=dict(annotations='annotations/panoptic_val.json', panoptic_folder='panoptic_val', min_pixels=200),
        data_prefix=dict(img_path='images/val', seg_map_path='semantic/val')))
test_dataloader = val_dataloader
val_evaluator = dict(num_classes=81, unseen=list(range(fold + 1, 81, 4)))
test_evaluator = val_evaluator
