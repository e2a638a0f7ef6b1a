"""PMT with a frozen DINOv3-L at 640 pixels: the model. No data, no schedule."""
size = 640
model = dict(
    type='frozenmm.PlainMaskSegmentor',
    # pixels pass as they are, so that padding is black, as officially; the tower normalises
    data_preprocessor=dict(type='DetDataPreprocessor', bgr_to_rgb=True, pad_size_divisor=size, pad_mask=True,
                           pad_seg=True, seg_pad_value=255),
    # gated weights under the DINOv3 licence (own terms, not Apache-2.0): download the file yourself once
    tower=dict(type='frozenmm.DINOv3Tower', model='dinov3_vitl16'),
    taps=[5, 11, 17, 23],
    classifier=dict(vocabulary='coco_panoptic_133'),
    mask_generator=dict(num_queries=200, num_blocks=6, compat=True),
    postprocess=dict(tasks=('panoptic', ), score_threshold=0.8, overlap_threshold=0.8, top_k=100))
