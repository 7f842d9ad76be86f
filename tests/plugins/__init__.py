"""Plugins as others would write them; found by entry points."""
