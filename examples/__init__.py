"""Programs that generated the committed example data and base model."""
