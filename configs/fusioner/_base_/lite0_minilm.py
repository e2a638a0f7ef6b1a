"""A small Fusioner over the embedded pair EfficientNet-Lite0 and MiniLM, for a CPU; features are cached on disk.

The pair shares no space of its own, and a few dozen names do not teach one: ConSE lends one, made of what the image
network knows about ImageNet's classes and what the text network says about their names. Its cosine with a name is added
to the masks with a learned factor, and half of the time has to do without them.
"""
_base_ = 'fusioner.py'

model = dict(
    data_preprocessor=dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0], size=(320, 320)),
    backbone=dict(
        tower=dict(
            _delete_=True,
            type='frozenmm.CachedTower',
            folder='cache/features/lite0_conse',
            quota_gb=4.0,
            tower=dict(
                type='frozenmm.ConSETower',
                text_tower=dict(type='frozenmm.MiniLMTextTower'),
                out_maps=['res5', 'text']))),
    decode_head=dict(
        in_channels=[320, 384],
        text_tower=dict(_delete_=True, type='frozenmm.MiniLMTextTower'),
        channels=128,
        fusion=dict(num_layers=2, num_heads=4),
        templates='vild14',
        decoder=dict(type='frozenmm.LightFusionerDecoder'),
        masks=dict(stride=8, shared_map=1, fusion_drop=0.5),
        loss_decode=dict(dice_weight=2.0)))

train_cfg = dict(max_iters=300, val_interval=300)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
custom_hooks = [dict(type='frozenmm.WarmupCosineHook', lr=(3e-3, 1e-5), weight_decay=(0.05, 0.05), warmup=30)]
default_hooks = dict(checkpoint=dict(interval=300))
