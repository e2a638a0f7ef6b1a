"""FrozenSeg with a frozen ConvNeXt-L CLIP and a frozen SAM ViT-B: the model. No data, no schedule."""
_base_ = '../../fc_clip/_base_/fc_clip_model.py'

model = dict(
    type='frozenmm.FrozenSeg',
    sam_tower=dict(type='frozenmm.SAMTower', model='vit_b'),
    mask_generator=dict(
        sam_branch=dict(
            channels=256, num_layers=6, num_heads=8, num_points=4, feedforward_channels=1024),
        decoder=dict(query_residue=2)),
    # prepared SAM masks vote in the semantic result: sam_masks=dict(folder='data/sam_masks/coco', ...)
    sam_masks=dict(epsilon=0.2, threshold=0.5))
