from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from frozenmm.engine.accelerate_hook import AccelerateHook
from frozenmm.ops import accelerate, loader, restore
from frozenmm.ops.accelerate import AcceleratedMultiScaleDeformableAttention as Accelerated
from frozenmm.ops.accelerate import AccelerationReport, accelerate_own

mmcv_ops = pytest.importorskip('mmcv.ops')
Foreign = mmcv_ops.MultiScaleDeformableAttention


def arguments() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return dict(query=torch.randn(1, 20, 16, generator=generator), value=torch.randn(1, 20, 16, generator=generator),
                reference_points=torch.rand(1, 20, 1, 2, generator=generator),
                spatial_shapes=torch.tensor([[4, 5]]), level_start_index=torch.tensor([0]))


def model() -> nn.ModuleDict:
    def attention() -> nn.Module:
        return Foreign(embed_dims=16, num_heads=4, num_levels=1, batch_first=True)
    return nn.ModuleDict(dict(encoder=attention(), decoder=attention(), other=nn.Linear(2, 2))).eval()


def test_outputs_stay_the_same_and_every_module_is_named() -> None:
    net = model()
    before = [net[k](**arguments()) for k in ('encoder', 'decoder')]
    report = accelerate(net)
    assert report.replaced == ['encoder', 'decoder'] and not report.skipped
    for key, expected in zip(('encoder', 'decoder'), before):
        torch.testing.assert_close(net[key](**arguments()), expected, atol=1e-5, rtol=1e-5)


def test_the_fused_operator_runs_in_place_of_grid_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    import mmcv.ops.multi_scale_deform_attn as source

    def refuse(*args: object) -> Tensor:
        raise AssertionError('mmcv\'s path ran')

    monkeypatch.setattr(source, 'multi_scale_deformable_attn_pytorch', refuse)
    net = model()
    with pytest.raises(AssertionError, match='path ran'):
        net['encoder'](**arguments())
    accelerate(net)
    net['encoder'](**arguments())


def test_restore_undoes_it() -> None:
    net = model()
    accelerate(net)
    assert isinstance(net['encoder'], Foreign) and type(net['encoder']) is Accelerated
    assert restore(net) == ['encoder', 'decoder']
    assert type(net['encoder']) is Foreign
    assert restore(net) == []


def test_a_second_call_replaces_nothing() -> None:
    net = model()
    accelerate(net)
    report = accelerate(net)
    assert report.replaced == [] and report.already == ['encoder', 'decoder']
    assert '2 did before' in str(report)


def test_parameters_stay_the_same_objects() -> None:
    net = model()
    before = dict(net.named_parameters())
    accelerate(net)
    after = dict(net.named_parameters())
    assert list(before) == list(after) and all(before[k] is after[k] for k in before)


def test_copies_and_pickles_stay_accelerated() -> None:
    net = model()
    accelerate(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(other['encoder']) is Accelerated
        torch.testing.assert_close(other['encoder'](**arguments()), net['encoder'](**arguments()))


def test_a_subclass_with_its_own_forward_is_left_alone_and_reported() -> None:

    class Special(Foreign):

        def forward(self, query: Tensor) -> Tensor:
            return query

    net = nn.Sequential(Special(embed_dims=16, num_heads=4))
    report = accelerate(net)
    assert report.replaced == [] and list(report.skipped) == ['0']
    assert type(net[0]) is Special and 'Special may have a forward of its own' in str(report)


def test_the_older_name_of_identity_still_works() -> None:
    net = model()
    given = arguments()
    residual = torch.ones_like(given['query'])
    accelerate(net)
    torch.testing.assert_close(net['encoder'](**given, residual=residual), net['encoder'](**given, identity=residual))


def test_anything_but_a_module_is_an_error() -> None:
    with pytest.raises(TypeError, match='takes a built model .* got dict'):
        accelerate(dict(type='DINO'))


def test_the_old_name_of_the_report_still_works() -> None:
    with pytest.warns(FutureWarning, match='AccelerateReport is now called .*AccelerationReport; .* with frozenmm 0.3'):
        from frozenmm.ops.accelerate import AccelerateReport
    assert AccelerateReport is AccelerationReport
    with pytest.raises(ImportError):
        from frozenmm.ops.accelerate import NoSuchReport  # noqa: F401


def test_a_mask2former_pixel_decoder_gives_the_same_maps() -> None:
    pytest.importorskip('mmdet')
    from mmdet.models.layers import MSDeformAttnPixelDecoder
    encoder = ConfigDict(num_layers=2, layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=16, num_heads=4, num_levels=3, num_points=4, batch_first=True, dropout=0.0),
        ffn_cfg=dict(embed_dims=16, feedforward_channels=32, num_fcs=2, ffn_drop=0.0)))
    decoder = MSDeformAttnPixelDecoder(in_channels=[8, 8, 8, 8], feat_channels=16, out_channels=16, num_outs=3,
                                       norm_cfg=dict(type='GN', num_groups=4), encoder=encoder,
                                       positional_encoding=dict(num_feats=8, normalize=True))
    decoder.init_weights()
    decoder.eval()
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 8, 32 // s, 32 // s, generator=generator) for s in (1, 2, 4, 8)]
    with torch.no_grad():
        expected, expected_outs = decoder(maps)
        assert len(accelerate(decoder).replaced) == 2
        mask_features, outs = decoder(maps)
    torch.testing.assert_close(mask_features, expected, atol=1e-5, rtol=1e-4)
    for out, wanted in zip(outs, expected_outs):
        torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-4)


def test_the_hook_accelerates_the_runners_model() -> None:

    class RunnerLike:
        model = model()

    AccelerateHook().before_run(RunnerLike())
    assert type(RunnerLike.model['encoder']) is Accelerated


@pytest.mark.parametrize('integers', [torch.int32, torch.int64])
def test_what_mmcvs_module_takes_is_taken(integers: torch.dtype) -> None:
    """Shapes of either integer type, and one reference for the whole batch."""
    net, given = model(), arguments()
    given |= dict(query=given['query'].repeat(3, 1, 1), value=given['value'].repeat(3, 1, 1),
                  spatial_shapes=given['spatial_shapes'].to(integers),
                  level_start_index=given['level_start_index'].to(integers))
    expected = net['encoder'](**given)
    accelerate(net)
    torch.testing.assert_close(net['encoder'](**given), expected, atol=1e-5, rtol=1e-5)
    given['reference_points'] = given['reference_points'].repeat(2, 1, 1, 1)
    with pytest.raises(ValueError, match=r'reference_points must have shape \[3, 20, 1, 2\], got \[2, 20, 1, 2\]'):
        net['encoder'](**given)


def test_deformable_detr_of_transformers_gives_the_same_boxes() -> None:
    transformers = pytest.importorskip('transformers')
    pytest.importorskip('timm')
    config = transformers.DeformableDetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=7,
        encoder_attention_heads=4, decoder_attention_heads=4, with_box_refine=True, use_pretrained_backbone=False,
        use_timm_backbone=False, backbone=None,
        backbone_config=transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1],
                                                  out_features=['stage2', 'stage3', 'stage4']))
    net = transformers.DeformableDetrForObjectDetection(config).eval()
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(pixels)
        report = accelerate(net)
        found = net(pixels)
    assert report.replaced == ['model.encoder.layers.0.self_attn.attn', 'model.decoder.layers.0.encoder_attn.attn',
                               'model.decoder.layers.1.encoder_attn.attn']
    for name in ('logits', 'pred_boxes'):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)
    other = pickle.loads(pickle.dumps(net))
    assert accelerate(other).already == report.replaced and restore(net) == report.replaced
    assert type(net.model.encoder.layers[0].self_attn.attn).__module__.startswith('transformers.models.deformable_detr')


def test_a_model_without_candidates_is_told_what_was_looked_for() -> None:
    assert str(accelerate(nn.Linear(2, 2))) == (
        'accelerate: 0 deformable attention modules use frozenmm.ops; looked for MultiScaleDeformableAttention of mmcv '
        'and of transformers')


def test_what_frozenmm_builds_is_accelerated_where_kernels_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded, expected in ((False, []), (True, ['encoder', 'decoder'])):
        monkeypatch.setattr(loader, '_state', {'cpu': loader.Library('cpu', loaded, 'a test')})
        assert accelerate_own(model()).replaced == expected
