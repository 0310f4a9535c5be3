"""The real servers from wheels, and the supervisor behind `tracker up`. A door: nothing else may import it, save tests.

It never runs a server as root, never listens outside the loopback unless told to, and never changes a folder above its own.
"""
