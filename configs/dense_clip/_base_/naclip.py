"""NACLIP: the last block attends key to key, and to its neighbours; refined by PAMR. No data."""
_base_ = './dense_clip.py'

model = dict(method=dict(name='naclip'), refine=dict(pamr=dict(steps=10, dilations=(8, 16))))
