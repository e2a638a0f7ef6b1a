"""`python -m frozenmm.zoo`: see `frozenmm.zoo.command`."""
import sys

from frozenmm.zoo.command import main

sys.exit(main())
