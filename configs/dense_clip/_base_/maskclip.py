"""MaskCLIP: every token of the last block keeps its own value; whole images. No data."""
_base_ = './dense_clip.py'

model = dict(
    method=dict(name='maskclip'),
    text=dict(templates='maskclip85'),
    rule=dict(logit_scale=1.0),
    test_cfg=dict(_delete_=True, mode='whole'))
