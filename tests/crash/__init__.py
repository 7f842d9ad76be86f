"""Proof: whatever is killed, cut, stalled or filled, nothing is lost and nothing doubled."""
