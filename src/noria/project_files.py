"""What makes a folder a project's, or a repo of features: light enough for whoever only looks for one."""

CONFIG_FILE = "noria.toml"
FEAST_FILE = "feature_store.yaml"
