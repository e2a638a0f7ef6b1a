"""`python -m frozenmm.zoo`: the same as `frozenmm zoo`."""
from frozenmm_command import main

main('zoo')
