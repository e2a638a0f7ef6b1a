"""Trident: as ProxyCLIP by DINO ViT-B/16 in windows, then over all cells by SAM, which also refines. No data."""
_base_ = './dense_clip.py'

model = dict(
    method=dict(name='trident'),
    proxy=dict(type='frozenmm.DINOTower', model='dino_vitb16'),
    sam=dict(type='frozenmm.SAMPrompter', model='vit_b'),
    refine=dict(sam=dict(coarse=0.2, area=225, mask_factor=0.005, iou=0.8)),
    test_cfg=dict(crop_size=(336, 336), stride=(224, 224)))
