"""MiniLM's last block, frozen, behind the coarsest map of a frozen EfficientNet-Lite0; CamVid, 11 classes.

Metric: mIoU of four arms in benchmarks/results/camvid_heads.json.
Command: python tools/train.py configs/further/frozen-llm-block_lite0_camvid.py
Source: LM4VisualEncoding (ICLR 2024), which has LLaMA-7B's block: weights='path/to/llama', heads=32.
"""
_base_ = '../plain_mask/plain_mask_lite0_camvid.py'

model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_val=0, seg_pad_val=11, size=(352, 480), test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='frozenmm.FrozenBackbone',
        tower=dict(
            type='frozenmm.CachedTower', folder='cache/lite0_camvid', store='bf16',
            tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res2', 'res3', 'res4', 'res5']))),
    neck=dict(type='frozenmm.FrozenLLMNeck', in_channels=[24, 40, 112, 320], block=dict(options=dict(residual=True))),
    decode_head=dict(
        type='FCNHead', in_channels=[24, 40, 112, 320], in_index=[0, 1, 2, 3], input_transform='resize_concat',
        channels=64, num_convs=1, kernel_size=1, num_classes=11, ignore_index=11, norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    test_cfg=dict(mode='whole'))
