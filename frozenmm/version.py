"""The version of frozenmm and its address, in one place."""

__version__ = '0.2.0.dev0'
PROJECT_URL = 'https://github.com/frozenmm/frozenmm'
