"""Sources to training rows: reading, orthography, splits, leaks, the audit."""
