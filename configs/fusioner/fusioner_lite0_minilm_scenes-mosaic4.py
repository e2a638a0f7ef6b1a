"""The scenes model tested on Mosaic-4 of scenes: four names at once. Runs on a CPU.

Metric: mIoU of seen classes 24.8, of unseen ones 0.6 (no transfer; README.md says why), three seeds.
Command: python tools/train.py configs/fusioner/fusioner_lite0_minilm_scenes-mosaic4.py
"""
_base_ = 'fusioner_lite0_minilm_scenes.py'

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='frozenmm.Mosaic4Dataset',
        source=dict(type='frozenmm.SceneEpisodes', data_root='data/scenes', split='val'),
        data_root='data/scenes_mosaic4',
        count=100,
        side=160,
        test_mode=True,
        pipeline={{_base_.test_pipeline}}))
test_dataloader = val_dataloader
