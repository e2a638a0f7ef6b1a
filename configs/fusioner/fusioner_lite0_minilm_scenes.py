"""EfficientNet-Lite0 and MiniLM on generated scenes; needs no data. Runs on a CPU.

Metric: mIoU of seen classes 48.3, of unseen ones 0.4 (no transfer; README.md says why), three seeds.
Command: python tools/train.py configs/fusioner/fusioner_lite0_minilm_scenes.py
"""
_base_ = ['_base_/lite0_minilm.py', '_base_/scenes.py']
