"""Training on FSS-1000, test on Mosaic-4: four test images of four classes on one canvas, four names at once.

The construction is ours (`frozenmm.datasets.mosaic`); the paper's was not published, so results do not compare.
"""
_base_ = 'fss1000.py'

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='frozenmm.Mosaic4Dataset',
        source=dict(type='frozenmm.FSS1000Dataset', split='test', data_root='data/fewshot_data'),
        data_root='data/mosaic4',
        count=1000,
        test_mode=True,
        pipeline={{_base_.test_pipeline}}))
test_dataloader = val_dataloader
