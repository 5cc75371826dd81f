"""What a net is trained to do: each task's loss, metric and drawings."""
