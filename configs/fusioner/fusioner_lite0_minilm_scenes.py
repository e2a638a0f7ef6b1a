"""EfficientNet-Lite0 and MiniLM on generated scenes; needs no data. Runs on a CPU.

Metric: mIoU and FB-IoU of seen and of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_lite0_minilm_scenes.py
"""
_base_ = ['_base_/lite0_minilm.py', '_base_/scenes.py']

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(model=dict(folder='cache/features/lite0_scenes')))
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=600))
