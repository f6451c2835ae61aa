"""QLoRA training of a group, and boosters on top of it."""
