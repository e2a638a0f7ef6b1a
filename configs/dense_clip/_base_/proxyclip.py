"""ProxyCLIP: the last block attends where DINO ViT-B/8 finds similar features. No data."""
_base_ = './dense_clip.py'

model = dict(
    method=dict(name='proxyclip'),
    proxy=dict(type='frozenmm.DINOTower', model='dino_vitb8'),
    test_cfg=dict(crop_size=(336, 336), stride=(112, 112)))
