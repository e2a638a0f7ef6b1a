"""PMT: a plain mask decoder on the taps of any frozen network."""
