"""``python -m noria`` is the command line."""

from noria.surface.cli.main import main

main()
