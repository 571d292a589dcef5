"""Packages: a folder that serves a model by itself, with all it takes to build an image of it."""

from noria.serving.package.folder import PackagePlan, write_package
from noria.serving.package.manifest import MANIFEST_FILE, verify_package

__all__ = ["MANIFEST_FILE", "PackagePlan", "verify_package", "write_package"]
