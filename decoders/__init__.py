"""From a raw call to an understood event: pure, total, never raises."""
