"""The same with frozen LeReS depth, from its official file (non-commercial).

Command: python tools/recon.py configs/frozen_recon/frozen_recon_leres.py VIDEO --out DIR
"""
_base_ = 'frozen_recon_tracks.py'

depth = dict(_delete_=True, type='frozenmm.LeReS', encoder='resnext101', weights=None)
