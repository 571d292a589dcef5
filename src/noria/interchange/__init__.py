"""Moving in and moving out: everything that an MLflow server holds, to and from it, with proof."""

from noria.interchange.exporting import export_mlflow
from noria.interchange.importing import import_mlflow
from noria.interchange.mlflow_database import MlflowDatabase
from noria.interchange.mlflow_server import MlflowServer
from noria.interchange.report import Comparison, Progress, Report
from noria.interchange.side import Side

__all__ = [
    "Comparison",
    "MlflowDatabase",
    "MlflowServer",
    "Progress",
    "Report",
    "Side",
    "export_mlflow",
    "import_mlflow",
]
