"""FC-CLIP with learned rows for three words beside the frozen text tower's; all other words stay as they were.

Metric: PQ; not measured.
Command: python tools/train.py configs/further/new-words_fc-clip_coco-mini.py
Source: ToolkenGPT (NeurIPS 2023).
"""
_base_ = '../fc_clip/fc_clip_conse-lite0_coco-mini.py'

model = dict(classifier=dict(text_tower=dict(
    _delete_=True, type='frozenmm.NewWords', text_tower=dict(type='frozenmm.MiniLMTextTower'),
    words=['pavement-merged', 'rug-merged', 'window-other'])))
