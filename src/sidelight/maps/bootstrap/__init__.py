"""The directory that `sidelight run` puts on the path of the programs that it starts."""
