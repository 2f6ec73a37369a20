"""Celery workers, attempts in processes of their own, and the predictor."""
