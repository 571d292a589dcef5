"""Models in the form they are served in: ONNX graphs checked against their source, in bundles."""

from noria.optimize.bundle import Bundle, Task, read_bundle, write_bundle

__all__ = ["Bundle", "Task", "read_bundle", "write_bundle"]
