"""Draws all that is drawn: sign faces, the camera that photographs them, what it sees."""
