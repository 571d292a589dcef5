"""Batch prediction: tables in, tables with predictions out, in parts that are there once and whole."""

from noria.serving.batch.columns import Wishes
from noria.serving.batch.job import Inputs, Options, Summary, run_job
from noria.serving.batch.run import PartsFailed, Progress
from noria.serving.batch.worker import ModelFiles

__all__ = ["Inputs", "ModelFiles", "Options", "PartsFailed", "Progress", "Summary", "Wishes", "run_job"]
