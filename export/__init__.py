"""A trained run becomes a bundle: ONNX graphs, a manifest that says how well it answers."""
