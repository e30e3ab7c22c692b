"""The commands of the command line; asgictl.cli puts them together."""
