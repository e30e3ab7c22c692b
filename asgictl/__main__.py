"""python -m asgictl."""

from asgictl.cli.main import main

main()
