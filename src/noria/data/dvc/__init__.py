"""Files and folders under version, in the formats of DVC 3: either tool goes on where the other stopped."""

from noria.data.dvc.adding import add
from noria.data.dvc.checkout import checkout
from noria.data.dvc.diff import diff
from noria.data.dvc.listing import list_tracked, version_of
from noria.data.dvc.repository import Repository, open_or_make_repository, open_repository
from noria.data.dvc.transfer import fetch, pull, push
from noria.data.dvc.workspace import Progress

__all__ = [
    "Progress",
    "Repository",
    "add",
    "checkout",
    "diff",
    "fetch",
    "list_tracked",
    "open_or_make_repository",
    "open_repository",
    "pull",
    "push",
    "version_of",
]
