"""What `noria.tracking` works on inside a project's folder, with no server running."""
