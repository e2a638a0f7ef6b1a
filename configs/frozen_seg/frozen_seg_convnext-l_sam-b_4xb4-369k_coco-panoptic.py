"""FrozenSeg, frozen ConvNeXt-L CLIP and SAM ViT-B, trained on COCO panoptic.

Metric: published, ADE20K PQ 25.9, AP 16.4, mIoU 34.4 without training on it; COCO PQ 56.2 (not measured here yet).
Command: bash tools/dist_train.sh configs/frozen_seg/frozen_seg_convnext-l_sam-b_4xb4-369k_coco-panoptic.py 4
Source: Chen et al., arXiv 2409.03525, tables 1 and 2.
"""
_base_ = ['../fc_clip/_base_/fc_clip.py', '../fc_clip/_base_/coco_panoptic.py']

model = dict(
    type='frozenmm.FrozenSeg',
    sam_tower=dict(type='frozenmm.SAMTower', model='vit_b'),
    mask_generator=dict(
        sam_branch=dict(
            channels=256, level_mode='single', num_layers=6, num_heads=8, num_points=4, feedforward_channels=1024),
        decoder=dict(query_residue=2)),
    # prepared SAM masks vote in the semantic result: sam_masks=dict(folder='data/sam_masks/coco')
    proposals=dict(epsilon=0.2, threshold=0.5))

train_dataloader = dict(batch_size=4)
