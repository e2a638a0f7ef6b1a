"""Readers of RGB-D sequences with camera poses: NYU video, ScanNet, 7-Scenes, TUM, KITTI raw, and a plain folder."""
from frozenmm.datasets.rgbd.readers import FORMATS, read_sequence
from frozenmm.datasets.rgbd.registration import register_depth
from frozenmm.datasets.rgbd.sequence import RGBDSequence

__all__ = ['FORMATS', 'RGBDSequence', 'read_sequence', 'register_depth']
