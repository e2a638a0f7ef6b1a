"""A frozen CLIP ViT-B/16 whose last block a method changes, as an mmseg segmentor, and mmseg's run time. No data."""
default_scope = 'mmseg'
custom_imports = dict(imports=['frozenmm'])

model = dict(
    type='frozenmm.DenseCLIPSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True),
    tower=dict(type='frozenmm.CLIPTower', model='ViT-B/16', resize_mode='none'),
    text_tower=dict(type='frozenmm.CLIPTextTower', model='ViT-B/16'),
    text=dict(templates='imagenet80', synonyms=False),
    rule=dict(logit_scale=40.0),
    test_cfg=dict(mode='slide', crop_size=(224, 224), stride=(112, 112)))

# pipelines by the short side
read = dict(type='LoadImageFromFile', to_float32=True)
label = dict(type='frozenmm.LoadLabelMap')
pack = dict(type='PackSegInputs')
pipeline_336 = [read, dict(type='Resize', scale=(2048, 336), keep_ratio=True), label, pack]
pipeline_448 = [read, dict(type='Resize', scale=(2048, 448), keep_ratio=True), label, pack]
pipeline_512 = [read, dict(type='Resize', scale=(2048, 512), keep_ratio=True), label, pack]
pipeline_520 = [read, dict(type='Resize', scale=(520, 520), keep_ratio=True), label, pack]
pipeline_560 = [read, dict(type='Resize', scale=(2048, 560), keep_ratio=True), label, pack]
pipeline_576 = [read, dict(type='Resize', scale=(2048, 576), keep_ratio=True), label, pack]
pipeline_688 = [read, dict(type='Resize', scale=(2048, 688), keep_ratio=True), label, pack]
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
