"""What the processes say to each other: channels, handoff of connections, scoreboard."""
