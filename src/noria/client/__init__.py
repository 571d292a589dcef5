"""What a program talks to Noria with: a project's folder with no server running, and a gateway over HTTP."""

from noria.client.predictions import Answer, PredictionClient

__all__ = ["Answer", "PredictionClient"]
