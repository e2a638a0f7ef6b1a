"""Demonstration material: painted scenes, generated rooms, stand-in networks, the quickstart and the web page.

Nothing in the library imports this room. Its registered classes are known by name (`frozenmm.GeneratedScenes`) as long
as the folder is there, see `frozenmm.registry`.
"""
