"""Runs of a user's project: load it, train it, remember which steps are done."""

from noria.pipelines.journal import Journal
from noria.pipelines.project import Project, load_project
from noria.pipelines.training import TrainingRequest, train_version

__all__ = ["Journal", "Project", "TrainingRequest", "load_project", "train_version"]
