"""Helm, built from its Go module, and the chart that it installs."""

from demo.helm.build import CHART, HelmError, helm, program

__all__ = ["CHART", "HelmError", "helm", "program"]
