"""Generated scenes: six classes in training, two others that it never names; all eight at test, unseen ones apart."""
_base_ = 'small_episodes.py'

scenes = dict(type='frozenmm.SceneEpisodes', data_root='data/scenes', unseen=('cup', 'horse'))
train_dataloader = dict(dataset=dict(scenes, split='train', ask='seen'))
val_dataloader = dict(dataset=dict(scenes, split='val', ask='all'))
test_dataloader = val_dataloader
val_evaluator = dict(num_classes=9, unseen=(2, 8))
test_evaluator = val_evaluator
