"""Pre-training through Accelerate: recipe, optimizer, schedule, checkpoints, loop."""
