"""`python -m frozenmm`: the same as the console command `frozenmm`."""
from frozenmm_command import main

main()
