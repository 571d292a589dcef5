"""The prediction log, reference profiles, and detectors that turn traffic into verdicts."""

from noria.monitoring.records import Verdict, WindowResult, list_verdicts, list_windows, raise_verdict

__all__ = ["Verdict", "WindowResult", "list_verdicts", "list_windows", "raise_verdict"]
