"""EfficientNet-Lite0 and MiniLM on generated scenes; needs no data. Runs on a CPU.

Metric: mIoU and FB-IoU of seen and of unseen classes (not measured yet).
Command: python tools/train.py configs/fusioner/fusioner_lite0_minilm_scenes.py
"""
_base_ = ['_base_/lite0_minilm.py', '_base_/scenes.py']
