"""TensorRT engines of a bundle's graphs, built on the device that runs them; without torch."""
