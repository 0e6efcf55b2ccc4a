"""Tries to refute what a sanitizer claims, by worst cases and by checks of clip and noise."""
