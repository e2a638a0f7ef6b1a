"""Words on photographs with embedded networks: ImageNet's classes and a small head trained on 70 COCO images.

The demonstration model of `frozenmm infer --vocab`. The numbers of `calibration` come from five heads trained on four
fifths of the training images each; `benchmarks/word_cells.py` is that recipe, written down after the numbers. Run anew
it gives imagenet=(0.294, -0.524), trained=(0.331, -0.188), segment=(1.374, 0.515): stricter, see docs/vocabulary.md.

Metric: panoptic quality and mIoU on 68 validation images, all 133 classes.
Command: python tools/train.py configs/fc_clip/word_cells_lite0_coco-mini.py
Source: our own; a demonstration, not a benchmark.
"""
_base_ = 'fc_clip_conse-lite0_coco-mini.py'

vocabulary = 'coco_panoptic_133'

model = dict(
    _delete_=True,
    type='frozenmm.WordCellSegmentor',
    data_preprocessor={{_base_.model.data_preprocessor}},
    tower=dict(
        type='frozenmm.RememberingTower',
        tower=dict(type='frozenmm.EfficientNetLiteTower', out_maps=['res3', 'res4', 'res5'])),
    train_vocabulary=vocabulary,
    calibration=dict(imagenet=(0.385, -0.255), trained=(0.334, -0.167), segment=(1.2, 0.63)))

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(480, 480), keep_ratio=True),
    dict(type='frozenmm.LoadPanopticMaps', with_bbox=True, with_mask=False, with_seg=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
