"""Brings runs to where they should be: reconciler, launch, services, builds, and the engines that run them."""
