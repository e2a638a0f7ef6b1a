"""COCO panoptic 2017 and the run time of training by iterations. No model, no schedule."""
_base_ = ['../../_base_/datasets/coco_panoptic.py', 'runtime.py']
