"""What was this row: versions, points, tail and export."""
