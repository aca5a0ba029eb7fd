"""The fields, one module each."""
