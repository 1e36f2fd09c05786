"""Kubernetes: what a run asks for, the manifests that say it, and what the cluster answers."""
