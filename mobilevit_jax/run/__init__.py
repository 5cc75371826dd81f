"""What a run writes, reads back and listens to, and the devices it is on."""
