"""Tiny frozen parts of training-free segmentors."""
from __future__ import annotations

CLIP = dict(type='frozenmm.CLIPTower', weights='random:1', resize_mode='none', model=dict(
    input_resolution=32, patch_size=8, width=32, layers=2, heads=2, output_dim=24))
TEXT = dict(type='frozenmm.CLIPTextTower', weights='random:2', model=dict(width=32, layers=1, heads=2, output_dim=24))
DINO = dict(type='frozenmm.DINOTower', weights='random:3', model=dict(
    img_size=32, patch_size=4, embed_dim=16, depth=1, num_heads=2))
DINOV2 = dict(type='frozenmm.DINOv2Tower', weights='random:3', model=dict(
    img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2))
SAM_ENCODER = dict(img_size=64, embed_dim=16, depth=2, num_heads=2, out_chans=8, window_size=2,
                   global_attn_indexes=(1,))
SAM_TOWER = dict(type='frozenmm.SAMTower', weights='random:4', model=SAM_ENCODER, resize_mode='squash')
SAM = dict(type='frozenmm.SAMPrompter', weights='random:4', model=SAM_ENCODER,
           decoder=dict(channels=8, depth=1, heads=2, mlp_channels=16, iou_channels=8))
RADIO = dict(type='frozenmm.RADIOTower', weights='random:5', resize_mode='none', model=dict(
    embed_dim=24, depth=2, num_heads=2, patch_size=8, position_side=8, prefix=3, adaptor=(28, 24, 1)))
PREPROCESSOR = dict(type='mmseg.SegDataPreProcessor', mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323],
                    bgr_to_rgb=True)
SLIDE = dict(mode='slide', crop_size=(32, 32), stride=(16, 16))
PARTS = {
    'clip': {}, 'maskclip': {}, 'sclip': {}, 'naclip': {}, 'proxyclip': dict(proxy=DINO),
    'trident': dict(proxy=DINO, sam=SAM), 'radseg': dict(tower=RADIO, rule=dict(logit_scale=100.0, on_cells=True))}


def run(model, pixels, sample):
    """The data sample that a test step gives."""
    return model.test_step(dict(inputs=[pixels], data_samples=[sample.clone()]))[0]
