"""NYU Depth v2 in mmseg's layout: depth in millimetres under `annotations`, measured between 1 mm and 10 m."""
_base_ = 'rooms.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='NYUDataset',
        data_root='data/nyu',
        data_prefix=dict(img_path='images/test', depth_map_path='annotations/test'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3),
            dict(type='frozenmm.SampleDepthPoints', count=100),
            dict(type='PackSegInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'depth_points'))],
        test_mode=True))
val_dataloader = None
val_evaluator = None
val_cfg = None
test_evaluator = dict(min_depth=1e-3, max_depth=10.0)
