"""FSS-1000: 520 classes in training, 240 others at test; one class per image."""
_base_ = 'episodes.py'

fss = dict(type='frozenmm.FSS1000Dataset', data_root='data/fewshot_data')
train_dataloader = dict(dataset=dict(fss, split='train'))
val_dataloader = dict(dataset=dict(fss, split='test'))
test_dataloader = val_dataloader
val_evaluator = dict(num_classes=1001)
test_evaluator = val_evaluator
