"""Mining: candidates from a teacher (expensive, stored), negatives from candidates (cheap, pure)."""
