"""Fusioner whose text tower learns the sentence around the names (CoOp); coco_mini fold 0.

Metric: mIoU of unseen classes; not measured. Names of training fit the sentence, others may not: see docs/systems.md.
Command: python tools/train.py configs/further/prompts_fusioner_coco-mini-fold0.py
Source: CoOp (IJCV 2022), Clinical Prompt Learning.
"""
_base_ = '../fusioner/fusioner_lite0_minilm_coco-mini-fold0.py'

model = dict(decode_head=dict(text_tower=dict(
    _delete_=True, type='frozenmm.PromptedTextTower', text_tower=dict(type='frozenmm.MiniLMTextTower'))))
