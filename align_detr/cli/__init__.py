"""The `align-detr` command: one file per subcommand."""
