"""F-LMM's head and SAM refiner on made-up attention of coco_mini's segments; shows that they learn to read such maps.

Metric: cIoU; it says nothing about any multimodal model. With LLaVA: provider=dict(_delete_=True,
type='frozenmm.LlavaEvidence', folder='path/to/llava-1.5-7b-hf') and a RefCOCO data set.
Command: python tools/train.py configs/further/f-lmm_made-up_coco-mini.py
Source: F-LMM (CVPR 2025); its recipe is AdamW 1e-4, 8 epochs, warm-up of 3 %, cosine to 0, clip 1, 8 x 1 pictures.
"""
default_scope = 'mmseg'
custom_imports = dict(imports=['frozenmm'])

model = dict(
    type='frozenmm.FrozenLMMGrounder',
    provider=dict(type='frozenmm.MadeUpEvidence'),
    refiner=dict(sam=dict(type='frozenmm.SAMPrompter', model='vit_l')))

data_root = 'data/coco_mini/'
dataset = dict(
    type='frozenmm.PhraseMasks', kind='panoptic', data_root=data_root,
    files=dict(panoptic='annotations/panoptic_train.json'), pictures='images/train', panoptic_folder='panoptic_train')
train_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'), dataset=dataset)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        dataset, files=dict(panoptic='annotations/panoptic_val.json'), pictures='images/val',
        panoptic_folder='panoptic_val', test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(type='frozenmm.ReferringIoU')
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=1000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=30, end=1000, eta_min=0)]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1000),
    sampler_seed=dict(type='DistSamplerSeedHook'))
env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
