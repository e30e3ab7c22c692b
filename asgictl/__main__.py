"""python -m asgictl."""

from asgictl.cli import main

main()
