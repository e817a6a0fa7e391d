"""What every command asks for, one file a subcommand."""
