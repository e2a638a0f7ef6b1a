"""Co-DINO with Swin-B (ImageNet-22k, 224 px), stochastic depth 0.3."""
_base_ = 'co_dino_4scale_r50.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        pretrain_img_size=224,
        embed_dims=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=7,
        drop_path_rate=0.3,
        patch_norm=True,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        convert_weights=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
                       'swin_base_patch4_window7_224_22k.pth')),
    neck=dict(in_channels=[256, 512, 1024]))
