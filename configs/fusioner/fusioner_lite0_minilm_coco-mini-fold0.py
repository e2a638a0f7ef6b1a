"""EfficientNet-Lite0 and MiniLM, both embedded; coco_mini, COCO-20i fold 0. Runs on a CPU.

Metric: mIoU of unseen classes 8.0 (seen 18.9), three seeds; README.md has controls and a blind answer.
Command: python tools/train.py configs/fusioner/fusioner_lite0_minilm_coco-mini-fold0.py
First, if you like: python tools/cache_features.py with the same config, which fills the feature cache.
"""
_base_ = ['_base_/lite0_minilm.py', '_base_/coco_mini.py']
