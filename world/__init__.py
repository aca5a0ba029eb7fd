"""Draws all that is drawn: sign faces, and the camera that photographs them."""
