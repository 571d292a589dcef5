"""Models in the form they are served in: ONNX graphs checked against their source, in bundles."""
