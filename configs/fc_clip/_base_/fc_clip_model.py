"""FC-CLIP with a frozen ConvNeXt-L CLIP: the model. No data, no schedule."""
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
    criterion=dict(
        class_weight=2.0, mask_weight=5.0, dice_weight=5.0, void_weight=0.1, num_points=12544, oversample_ratio=3.0,
        importance_ratio=0.75),
    postprocess=dict(
        tasks=('semantic', 'panoptic', 'instance'), score_threshold=0.0, overlap_threshold=0.8, top_k=100))
