"""What the pipeline asks of the outside world: each action awaits, none touches the database."""
