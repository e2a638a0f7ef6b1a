"""Fusion of the small real RGB-D sequence: connected surface, agreement of the re-rendered depth with the sensor.

    python benchmarks/recon_fusion.py --data DIR [--recon OUT] [--save-dir FOLDER]

DIR holds rgbd_kitchen. Row by row: known poses and sensor depth at 2 and 3 cm; with `--recon OUT`, the mesh of an
earlier `tools/recon.py DIR/rgbd_kitchen/color --out OUT ...`, brought to metres by the similarity of the camera
centres. Pictures (from outside, and from a camera's place beside the photograph) go to `--save-dir`.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np
import torch

from frozenmm.compat.files import write_whole
from frozenmm.env import machine_record
from frozenmm.evaluation.trajectory import fit_similarity
from frozenmm.reconstruction.mesh import Mesh, drop_specks, largest_share
from frozenmm.reconstruction.outputs import read_ply, read_tum
from frozenmm.reconstruction.render import outside_view, render_mesh
from frozenmm.reconstruction.sequences import read_sequence
from frozenmm.reconstruction.sparse_tsdf import fuse_frames
