"""Training every combination of varied settings at an equal budget, and comparing the runs on one page."""

from melcodec.sweep.plan import Plan, Run, make_plan
from melcodec.sweep.run import sweep

__all__ = ["Plan", "Run", "make_plan", "sweep"]
