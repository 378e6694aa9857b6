"""Intent: what the operator writes. `load_plan` reads it, `Plan` is its shape."""

from dr_pipelines.plan.load import default_plan_path, load_plan
from dr_pipelines.plan.model import Plan

__all__ = ["Plan", "default_plan_path", "load_plan"]
