"""A small DINO on a ResNet-18 of half width: two encoder and three decoder layers, 128 wide. No data, no neck."""
width = 128

model = dict(
    type='frozenmm.EnhancedDINO',
    with_box_refine=True,
    as_two_stage=True,
    num_feature_levels=3,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='ResNet', depth=18, base_channels=32, num_stages=4, out_indices=(1, 2, 3), norm_cfg=dict(type='BN'),
        norm_eval=False, frozen_stages=-1),
    encoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=width, num_levels=3, num_heads=8, num_points=4, dropout=0.0),
            ffn_cfg=dict(embed_dims=width, feedforward_channels=256, ffn_drop=0.0))),
    decoder=dict(
        num_layers=3,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=width, num_heads=8, dropout=0.0),
            cross_attn_cfg=dict(embed_dims=width, num_levels=3, num_heads=8, num_points=4, dropout=0.0),
            ffn_cfg=dict(embed_dims=width, feedforward_channels=256, ffn_drop=0.0)),
        post_norm_cfg=None),
    positional_encoding=dict(num_feats=width // 2, normalize=True, offset=0.0, temperature=20),
    bbox_head=dict(
        type='DINOHead', embed_dims=width, sync_cls_avg_factor=True,
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    dn_cfg=dict(
        label_noise_scale=0.5, box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None)),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0)
            ])))
