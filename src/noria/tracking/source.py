"""Where a run comes from: the user, the script and the Git commit, as tags any MLflow client shows."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

from noria.ids import process_user


def source_tags() -> dict[str, str]:
    """The tags MLflow clients give every run: user, script, and the commit of the script's folder if it has one."""
    script = sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c") else ""
    tags = {"mlflow.user": process_user(), "mlflow.source.type": "LOCAL", "mlflow.source.name": script or "python"}
    commit = git_commit(Path(script).resolve().parent if script else Path.cwd())
    return tags if commit is None else tags | {"mlflow.source.git.commit": commit}


@functools.cache
def git_commit(folder: Path) -> str | None:
    """The commit checked out in ``folder``, or None outside of Git. Asked once a process."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
