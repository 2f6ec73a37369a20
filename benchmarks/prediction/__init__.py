"""Predicted against reached accuracy, on combinations that are diagnosed and then really trained."""
