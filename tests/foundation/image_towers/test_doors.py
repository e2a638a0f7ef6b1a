from __future__ import annotations

import pytest

from frozenmm.errors import UnknownName
from frozenmm.foundation.image_towers.doors import DOORS
from frozenmm.registry import MODELS


@pytest.mark.parametrize('tower, model, door', [
    ('SAMTower', 'sam2_hiera_tiny', 'TimmTower'),
    ('SAMTower', 'mobile_sam', 'MobileSAMTower'),
    ('DINOv2Tower', 'dinov3_vits16', 'DINOv3Tower'),
    ('DINOv3Tower', 'dinov2_vits14', 'DINOv2Tower'),
    ('DINOv3Tower', 'facebook/dinov3-convnext-tiny-pretrain-lvd1689m', 'TimmTower'),
    ('DINOTower', 'dinov2_vits14', 'DINOv2Tower'),
    ('CLIPTower', 'ViT-B-16-SigLIP2', 'OpenCLIPTower'),
    ('CLIPTower', 'vit_base_patch16_siglip_224', 'TimmTower'),
    ('OpenCLIPTower', 'vit_pe_core_tiny_patch16_384', 'TimmTower'),
    ('RADIOTower', 'vit_base_patch16_radio_v3', 'TimmTower'),
    ('TimmTower', 'MobileCLIP2-S0', 'OpenCLIPTower'),
    ('TimmTower', 'dinov3_vitl16', 'DINOv3Tower'),
])
def test_a_name_given_to_another_tower_is_led_to_its_own(tower, model, door):
    with pytest.raises(UnknownName, match=rf"{tower} does not know .*; it is opened by {door}"):
        MODELS.build(dict(type=f'frozenmm.{tower}', model=model, weights='random'))


def test_a_name_that_nobody_knows_is_answered_with_the_nearest_ones():
    with pytest.raises(UnknownName, match="unknown SAM model 'vit_x'; did you mean one of"):
        MODELS.build(dict(type='frozenmm.SAMTower', model='vit_x', weights='random'))


def test_every_door_is_a_tower():
    assert all(MODELS.get(f'frozenmm.{door}') for _, door in DOORS)
