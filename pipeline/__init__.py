"""Joins extractors, model and postprocess."""
