"""Depth, camera poses and a mesh from a video: frozenmm recon [CONFIG] INPUT --out DIR [--depth FOLDER]."""
from __future__ import annotations

import argparse
import os
import sys

from frozenmm_command import options

# the solver makes many small products, on which several BLAS threads only wait for each other; read at numpy's import
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument('paths', nargs='+', metavar='[CONFIG] INPUT',
                        help='a config (.py, may be left out), then a folder of images or a video')
    parser.add_argument('--out', required=True, help='folder of the results; the same command resumes there')
    parser.add_argument('--depth', help='depth maps from a folder (.npy, .png) or an .npz file, not from a network')
    parser.add_argument('--depth-kind', default='affine_depth', help='affine_depth, affine_disparity or metric')
    parser.add_argument('--depth-unit', default='auto', help='of metric depth maps: mm, m, metres per step, or auto')
    parser.add_argument('--camera', help='calibration: fx,fy,cx,cy[,k1,k2,p1,p2[,k3]], or a cameras.txt of COLMAP, a '
                        'transforms.json of nerfstudio, a .yml of OpenCV')
    parser.add_argument('--mask', help='classes that do not count, found by a segmentation model: "sky, person, car"')
    parser.add_argument('--mask-model', default='open-vocabulary', help='model for --mask: checkpoint of the zoo, '
                        'config of an open-vocabulary model, or config file of an mmseg model')
    parser.add_argument('--mask-weights', help='checkpoint of the model for --mask')
    options.add_device(parser)
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='change values of the config, e.g. every=5 focal_px=525 mode=direct '
                        'radial=True depth_only=True poses_c2w=poses.txt')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    from frozenmm.engine.options import parse_options
    from frozenmm.errors import UserError
    from frozenmm.reconstruction.command import reconstruct_from
    if len(args.paths) > 2:
        raise UserError(f'expected [CONFIG] INPUT, got {len(args.paths)} paths: {args.paths}')
    mask = None
    if args.mask is not None:
        from frozenmm.apis.semantic_masks import SemanticMask
        mask = SemanticMask(args.mask.split(','), model=args.mask_model, weights=args.mask_weights, device=args.device)
    given = parse_options(args.cfg_options)
    if args.camera is not None:
        numbers = args.camera.split(',')
        given['camera'] = [float(number) for number in numbers] if len(numbers) > 1 else args.camera
    result = reconstruct_from(args.paths[-1], args.out, config=args.paths[0] if len(args.paths) == 2 else None,
                              depth=args.depth, depth_kind=args.depth_kind, device=args.device, options=given,
                              mask=mask, depth_unit=args.depth_unit)
    print(f'focal length {result.focal_px:.1f} px of the images in {args.out}/images, +-'
          f'{100 * result.focal_error:.1f} %; the frozen depth fits {100 * result.depth_share:.0f} % of the tracked '
          'points within 10 %')
    print(f'look at it: frozenmm view {args.out}')
    if result.unreadable:
        sys.exit(f'{len(result.unreadable)} image{"s" * (len(result.unreadable) > 1)} could not be read:\n'
                 + '\n'.join(result.unreadable))
