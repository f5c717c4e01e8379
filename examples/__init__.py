"""Programs that made the committed demonstration data and base model."""
