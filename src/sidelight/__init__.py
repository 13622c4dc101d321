"""Names and wiring of sidelight's face."""
