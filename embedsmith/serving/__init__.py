"""What uses a finished model: encoding, search, export."""
