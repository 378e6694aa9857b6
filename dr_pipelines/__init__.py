"""Disaster recovery for PostgreSQL and file storage that proves itself, on Dagster."""

__version__ = "0.1.0"
