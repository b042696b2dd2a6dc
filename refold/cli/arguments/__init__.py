"""The arguments of every command, by what it is for; each module lists its own as `COMMANDS`."""
