"""What is seen inside a trained network."""
