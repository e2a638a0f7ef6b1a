"""PMT: plain mask decoder on a frozen DINOv3-L, COCO instances at 1280 pixels.

Metric: published, mask AP 49.0 (not measured here yet).
Command: python tools/train.py configs/plain_mask/plain_mask_dinov3-l_8xb2-12e_coco-instance-1280.py
Source: PMT (arXiv 2603.25398). DINOv3 weights have their own licence, not Apache-2.0.
"""
_base_ = 'plain_mask_dinov3-l_4xb4-12e_coco-instance-640.py'

size = 1280
model = dict(data_preprocessor=dict(pad_size_divisor=size))
# places of the steps in the pipelines: 3, 4 and 5 resize, crop and pad; 1 resizes
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(size, size))
train_pipeline[4].update(crop_size=(size, size))
train_pipeline[5].update(size=(size, size))
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(size, size))
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
