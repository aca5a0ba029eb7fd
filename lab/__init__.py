"""What every script stands on; imports nothing of the project outside this folder."""
