"""Where models are, and how they get to the executors."""
