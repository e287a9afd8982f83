"""The edge: frames in, answers out. Needs numpy, pyzmq, msgspec and one inference engine."""
