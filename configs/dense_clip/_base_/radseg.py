"""RADSeg: C-RADIOv3-B attends by its own output, in windows and over all cells; SigLIP2 reads the words. No data."""
_base_ = './dense_clip.py'

model = dict(
    tower=dict(
        _delete_=True, type='frozenmm.RADIOTower', model='c-radio_v3-b', adaptor='siglip2-g', resize_mode='none'),
    text_tower=dict(_delete_=True, type='frozenmm.OpenCLIPTextTower', model='ViT-gopt-16-SigLIP2-384'),
    method=dict(name='radseg'),
    rule=dict(logit_scale=100.0, denoising=0.5, on_cells=True))
