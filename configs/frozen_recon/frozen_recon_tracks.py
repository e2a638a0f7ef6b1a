"""Poses, focal length, consistent depth and a mesh from a video, with frozen depth and feature tracks.

Metric: ATE, AbsRel and focal error on the recorded clips (`benchmarks/recon_e2e.py`).
Command: python tools/recon.py configs/frozen_recon/frozen_recon_tracks.py VIDEO --out DIR
Source: FrozenRecon, ICCV 2023, with a solver of our own in place of the staged first-order loop.
"""
custom_imports = dict(imports=['frozenmm'])

# any registered depth network (frozen_recon_leres.py: LeReS); this is the embedded demonstration network, trained on
# generated rooms only; `tools/recon.py --depth FOLDER` takes maps from files instead
depth = dict(type='frozenmm.LightDepth')

# every n-th frame; None: 1 of a folder of images, 10 of a video
every = None
# focal length in pixels at the images' width, where it is known
focal_px = None
# TUM file of known camera-to-world poses, one line per frame; the result is in their world and unit
poses_c2w = None
# metres per unit of the frozen depth, where it is known; 1 for networks that predict metres
metric_scale = None
# radial distortion (one or two coefficients) and principal point: None finds them where the tracks fit clearly better
# with them, True always, False never; results are written for the straightened images
radial = None
principal = None
# calibration: fx, fy, cx, cy and k1, k2, p1, p2, k3, or a cameras.txt of COLMAP, transforms.json or .yml of OpenCV;
# without it and without focal_px, EXIF says about what the focal length is
camera = None
# larger images are made smaller, to so many pixels of the longer side
longest_side = 1024
# edge of a voxel in the unit of the poses; None: the longest side of the scene over 128, but not finer than half of
# what nine of ten depths of neighbouring frames differ by
voxel_size = None
mesh = True
# also write mesh.glb (for web viewers and Blender)
glb = False
# connected parts of the mesh with fewer faces are dropped
min_faces = 100
# write consistent depth, report and summary only
depth_only = False
# auto (tracks, with COLMAP's cameras as a second opinion where pycolmap is installed and ours leave doubt), tracks,
# colmap (COLMAP's cameras), direct (brightness, without features) or compat (the official first-order loop: minutes)
mode = 'auto'
seed = 0
