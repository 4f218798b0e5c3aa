"""Teachers: whatever scores a query against passages."""
