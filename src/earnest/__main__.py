"""`python -m earnest`, as launchers such as torchrun start it."""

from earnest.cli import main

main()
