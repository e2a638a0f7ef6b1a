"""FC-CLIP with a frozen ConvNeXt-L CLIP: the model and the published recipe. No data."""
_base_ = ['fc_clip_model.py', 'recipe_369k.py']
