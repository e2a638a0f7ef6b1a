"""SCLIP: the last block attends query to query and key to key. No data."""
_base_ = './dense_clip.py'

model = dict(method=dict(name='sclip'))
