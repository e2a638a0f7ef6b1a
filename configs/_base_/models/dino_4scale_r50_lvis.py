"""DINO for the 1203 classes of LVIS: federated quality focal loss, soft-NMS; as Frozen-DETR's fork has it."""
_base_ = 'dino_4scale_r50.py'

model = dict(
    type='frozenmm.EnhancedDINO',
    patch_norm='LN',
    bbox_head=dict(
        type='frozenmm.EnhancedDINOHead',
        num_classes=1203,
        loss_cls=dict(_delete_=True, type='frozenmm.FederatedQualityFocalLoss', counts='data/lvis/lvis_v1_train.json',
                      num_classes=50, beta=2.0)),
    test_cfg=dict(max_per_img=300, nms=dict(type='soft_nms', iou_threshold=0.8)))
