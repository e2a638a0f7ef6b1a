"""Generated rooms with exact depth: a data set for depth networks that needs no download.

Boxes furnish a room; walls and furniture carry paint or photographs that come with scikit-image. What the test rooms
show never occurs in training.
"""
from frozenmm.demo.rooms.paint import Picture, paint_room
from frozenmm.demo.rooms.writer import RoomImages, painted_rooms, write_rooms

__all__ = ['Picture', 'RoomImages', 'paint_room', 'painted_rooms', 'write_rooms']
