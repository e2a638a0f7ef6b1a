"""FC-CLIP with a frozen ConvNeXt-L CLIP: the model and the published recipe. No data."""
model = dict(
    type='frozenmm.FCCLIP',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        pad_mask=True,
        pad_seg=True,
        seg_pad_value=255),
    image_tower=dict(type='frozenmm.OpenCLIPTower', model='convnext_large_d_320'),
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
        alpha=0.4,
        beta=0.8),
    criterion=dict(
        class_weight=2.0, mask_weight=5.0, dice_weight=5.0, void_weight=0.1, num_points=12544, oversample_ratio=3.0,
        importance_ratio=0.75),
    postprocess=dict(
        tasks=('semantic', 'panoptic', 'instance'), score_threshold=0.0, overlap_threshold=0.8, top_k=100))

# norms and embeddings are not decayed; the pixel decoder's level encoding and the logit scale are, as officially
optim_wrapper = dict(
    type='frozenmm.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(
            query_feat=dict(decay_mult=0.0), query_embed=dict(decay_mult=0.0), level_embed=dict(decay_mult=0.0),
            void_embedding=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.01, norm_type=2))
max_iters = 368750
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[327778, 355092], gamma=0.1)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
