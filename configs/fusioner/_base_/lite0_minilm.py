"""A small Fusioner over the embedded pair EfficientNet-Lite0 and MiniLM, for a CPU; features are cached on disk."""
_base_ = 'fusioner.py'

model = dict(
    data_preprocessor=dict(
        mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0], size=(224, 224)),
    backbone=dict(
        model=dict(
            _delete_=True,
            type='frozenmm.CachedTower',
            folder='cache/features/lite0',
            quota_gb=4.0,
            tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res4', 'res5']))),
    decode_head=dict(
        in_channels=[112, 320],
        text=dict(_delete_=True, type='frozenmm.MiniLMTextTower'),
        channels=128,
        num_layers=2,
        num_heads=4,
        templates='vild14',
        decoder=dict(type='frozenmm.LightFusionerDecoder'),
        mask_stride=4))

train_cfg = dict(max_iters=1500, val_interval=1500)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
custom_hooks = [dict(type='frozenmm.WarmupCosineHook', lr=(1e-3, 1e-5), weight_decay=(0.05, 0.05), warmup=100)]
default_hooks = dict(checkpoint=dict(interval=1500))
