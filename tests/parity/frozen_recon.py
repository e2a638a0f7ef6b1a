"""Adapters of the recorded FrozenRecon cases, through the public functions of frozenmm.reconstruction."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from frozenmm.evaluation.depth import align_depth, depth_errors
from frozenmm.evaluation.trajectory import fit_similarity, trajectory_errors
from frozenmm.foundation.depth_networks.leres_network import AO, FFM, FTB
from frozenmm.reconstruction.cameras import invert_intrinsics
from frozenmm.reconstruction.frame_selection import frame_similarity, select_frames
from frozenmm.reconstruction.lwlr import LWLR
from frozenmm.reconstruction.motions import chain, euler_motion, quaternion_motion, relative_angles, se3_exp
from frozenmm.reconstruction.pair_sampling import PairDraw, angle_probabilities, offset_probabilities
from frozenmm.reconstruction.staged_optimizer import Stage, StagedOptimizer, StagedParameters, StagedSettings
from frozenmm.reconstruction.tsdf import TSDFVolume, frustum_bounds, mask_border
from parity.cases import Case

TERMS = ('photometric', 'geometric', 'norm')
NOT_COMPARED = {
    'pair_sampling': [(r'drawn_.*', 'informative: draws of one generator of one release of torch')],
}


def lwlr(case: Case) -> dict[str, Tensor]:
    depth, anchors = (case.inputs[name].requires_grad_() for name in ('depth', 'anchors'))
    correction = LWLR(tuple(depth.shape[1:]), bandwidth_px=case.params['bandwidth'],
                      stride=case.params['query_stride'], ridge=case.params['ridge_intercept'], compat=True)
    corrected = correction(depth, anchors)
    gradients = torch.autograd.grad((corrected * case.inputs['probe']).sum(), (depth, anchors))
    return {'depth': corrected, 'anchor_rc': correction.anchor_pixels, 'grad.depth': gradients[0],
            'grad.anchors': gradients[1]}


def pose_params(case: Case) -> dict[str, Tensor]:
    vectors = case.inputs['vec']
    poses = chain(euler_motion(vectors))
    return {'euler': euler_motion(vectors), 'quat': quaternion_motion(vectors), 'se3_exp': se3_exp(vectors),
            'global_euler': poses, 'rel_angle': relative_angles(poses, compat=True),
            'K_inv': invert_intrinsics(case.inputs['K'])}


def pair_sampling(case: Case) -> dict[str, Tensor]:
    targets, params = case.inputs['tgt_ids'], case.params
    rows = angle_probabilities(case.inputs['angle'], targets, near=params['near'], limit=params['angle_thr'],
                               compat=True)
    return {'p_local': offset_probabilities(len(targets), near=params['near']), 'p_global': rows.float()}


def frame_selection(case: Case) -> dict[str, Tensor]:
    similarity = frame_similarity(case.inputs['features'], max_width=case.params['max_width'])
    kept = select_frames(similarity, threshold=case.params['sim_thr'])
    return {'similarity': similarity, 'indexes': torch.tensor(kept)}


def _load(module: nn.Module, weights: dict[str, Tensor], prefix: str) -> nn.Module:
    state = module.state_dict()
    module.load_state_dict({key: weights[prefix + key].reshape(value.shape) for key, value in state.items()})
    return module.eval()


def leres_blocks(case: Case) -> dict[str, Tensor]:
    outer, inner, up = (case.params[name] for name in ('in_channels', 'mid_channels', 'up'))
    ftb = _load(FTB(outer, inner), case.weights, 'ftb.')
    ffm = _load(FFM(outer, inner, inner, up), case.weights, 'ffm.')
    ao = _load(AO(inner, 1, up), case.weights, 'ao.')
    with torch.no_grad():
        fused = ffm(case.inputs['low'], case.inputs['high'])
        return {'ftb': ftb(case.inputs['low']), 'ffm': fused, 'ao': ao(fused)}


def _stages(params: dict) -> tuple[Stage, ...]:
    weights, rates = params['loss_weights'], params.get('lr', {})
    stages = []
    for index in range(3):
        lr = {name: rates[name][index] if rates else 0.0 for name in ('t', 'r', 'focal', 'depth', 'anchors')}
        trimmed = index in params.get('trim_in_stages', (0, 1))
        stages.append(Stage(params.get('iters_per_stage', 1), *(weights[name][index] for name in TERMS), *lr.values(),
                            trim=params.get('trim_quantile', 0.9) if trimmed else None, by_angle=index > 0))
    return tuple(stages)


def _images(case: Case) -> Tensor:
    return case.inputs['rgb'].permute(0, 3, 1, 2).float() / 255


def warp_and_losses(case: Case) -> dict[str, Tensor]:
    start = StagedParameters(*(case.inputs[name] for name in ('t', 'r', 'focal', 'scale', 'shift', 'anchors')))
    outputs = {}
    for index, stage in enumerate(_stages(case.params)):
        settings = StagedSettings(motion=case.params['pose'], bandwidth_px=case.params['bandwidth'], compat=True)
        optimizer = StagedOptimizer(_images(case), case.inputs['depth'], parameters=start, settings=settings)
        draw = PairDraw(*(case.inputs[f's{index}.{name}'].long() for name in ('tgt', 'ref', 'pixels')))
        losses = optimizer.evaluate(stage, draw)
        losses.total.backward()
        outputs[f's{index}.losses'] = torch.stack(
            [value.double() for value in (losses.photometric, losses.geometric, losses.anchors)])
        parameters = optimizer.parameters
        for name, leaf in (('t', parameters.translations), ('r', parameters.rotations),
                           ('focal', parameters.focal_ratio), ('scale', parameters.scale),
                           ('shift', parameters.shift), ('anchors', parameters.anchors)):
            outputs[f'grad.s{index}.{name}'] = leaf.grad
    return outputs


def optimise_small(case: Case) -> dict[str, Tensor]:
    frames, draws = len(case.inputs['rgb']), []
    for targets, references, pixels in zip(*(case.inputs[name].long() for name in ('tgt', 'ref', 'pixels'))):
        inside = (references >= 0) & (references < frames)
        draws.append(PairDraw(targets[inside], references[inside], pixels))
    settings = StagedSettings(_stages(case.params), motion=case.params['pose'], compat=True)
    optimizer = StagedOptimizer(_images(case), case.inputs['depth'], settings=settings)
    result = optimizer.run(draws)
    parameters = result.parameters
    return {'losses': result.losses, 't': parameters.translations, 'r': parameters.rotations,
            'focal': parameters.focal_ratio, 'scale': parameters.scale, 'shift': parameters.shift,
            'anchors': parameters.anchors, 'poses_w2c': result.poses_w2c, 'depth': result.depth,
            'K': result.intrinsics_px}


def tsdf_fusion(case: Case) -> dict[str, Tensor]:
    params, intrinsics, poses = case.params, case.inputs['K'], case.inputs['poses_c2w']
    depth = mask_border(case.inputs['depth'], params['edge_px']) if params['edge_mask'] else case.inputs['depth']
    volume = TSDFVolume(frustum_bounds(depth, intrinsics, poses, with_origin=True), voxel_size=params['voxel_size'],
                        truncation_voxels=params['trunc_voxels'])
    for frame in zip(depth, case.inputs['color'], poses):
        volume.integrate(frame[0], frame[1], intrinsics, frame[2], weight=params['obs_weight'])
    mesh = volume.extract_mesh(observed_only=False)
    vertices = torch.from_numpy(mesh.vertices)
    return {'tsdf': volume.distance, 'weight': volume.weight, 'color': volume.packed_colour(),
            'origin': volume.origin, 'bounds': volume.bounds, 'dim': torch.tensor(volume.dim),
            'num_verts_faces': torch.tensor([len(mesh.vertices), len(mesh.faces)]), 'verts_mean': vertices.mean(0),
            'verts_min': vertices.amin(0), 'verts_max': vertices.amax(0)}


def depth_metrics(case: Case) -> dict[str, Tensor]:
    prediction, truth = case.inputs['pred'], case.inputs['gt']
    aligned = align_depth(prediction, truth, method='lsq_scale_shift')
    errors = {name: torch.tensor([value], dtype=torch.float64) for name, value in depth_errors(aligned, truth).items()}
    return {'aligned': aligned, 'abs_rel_single': errors['abs_rel'], **errors}


def trajectory_metrics(case: Case) -> dict[str, Tensor]:
    estimate, truth = case.inputs['est'], case.inputs['gt']
    fit = fit_similarity(estimate, truth)
    free, rigid = trajectory_errors(estimate, truth), trajectory_errors(estimate, truth, with_scale=False)
    scalar = {'scale': float(fit.scale), 'ate_rmse': free['ate_rmse'], 'ate_mean': free['ate_mean'],
              'ate_rmse_se3': rigid['ate_rmse']}
    return {'rot': fit.rotation, 'trans': fit.translation,
            **{name: torch.tensor([value], dtype=torch.float64) for name, value in scalar.items()}}


ADAPTERS = {function.__name__: function for function in (
    lwlr, pose_params, pair_sampling, frame_selection, leres_blocks, warp_and_losses, optimise_small, tsdf_fusion,
    depth_metrics, trajectory_metrics)}
