"""FC-CLIP with a frozen ConvNeXt-L CLIP as an mmseg segmentor, and mmseg's run time. No data."""
default_scope = 'mmseg'
custom_imports = dict(imports=['frozenmm'])

model = dict(
    type='frozenmm.OpenVocabularySegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        test_cfg=dict(size_divisor=32)),
    model=dict(
        type='frozenmm.FCCLIP',
        tower=dict(type='frozenmm.OpenCLIPTower', model='convnext_large_d_320'),
        mask_generator=dict(
            pixel_decoder=dict(
                channels=256, mask_channels=256, num_layers=6, num_heads=8, num_points=4, feedforward_channels=1024),
            decoder=dict(
                in_channels=256, channels=256, mask_channels=256, num_queries=250, num_layers=9, num_heads=8,
                feedforward_channels=2048)),
        classifier=dict(
            embed_channels=768,
            text_tower=dict(type='frozenmm.OpenCLIPTextTower', model='convnext_large_d_320'),
            train_vocabulary='coco_panoptic_133',
            # the classes to predict; change this line, or call `model.set_vocabulary([...])`
            vocabulary='coco_panoptic_133',
            templates='vild14',
            ensemble=dict(alpha=0.4, beta=0.8)),
        postprocess=dict(tasks=('semantic', ))),
    # for large pictures: test_cfg=dict(mode='slide', crop_size=(800, 800), stride=(600, 600))
    test_cfg=dict(mode='whole'))

mmseg_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='frozenmm.LoadLabelMap'),
    dict(type='PackSegInputs')
]

env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
