"""Environment variables that mean something to us besides keys of a configuration."""

STORAGE_PASSWORD = "AUTOCOMPRESS_STORAGE_PASSWORD"
"""The password of a database server; it is read when needed and never written."""
