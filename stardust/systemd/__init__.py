"""What systemd and stardust say to each other: sockets handed over, states notified."""
