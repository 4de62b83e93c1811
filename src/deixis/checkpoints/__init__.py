"""Official checkpoints into this library and back; the only room that knows foreign key names."""
