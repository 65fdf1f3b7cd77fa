"""The control socket: what stardustctl asks and the supervisor answers."""
