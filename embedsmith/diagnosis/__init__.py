"""What a machine, its software and its surroundings offer: `embedsmith doctor`."""
