"""Labelled images: read from untrusted archives, checked, packed, and served to the jobs. No torch here."""
