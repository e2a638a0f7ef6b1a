"""The old place of the generated room, for one release."""
from frozenmm.deprecation import moved_names

_NAMES = ('RoomClip', 'RoomSettings', 'camera_path', 'distort_depth', 'render_room')
__getattr__ = moved_names(__name__, removed_in='0.3', **{name: f'frozenmm.demo.rooms.clip.{name}' for name in _NAMES})
