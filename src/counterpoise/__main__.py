"""`python -m counterpoise`, as torchrun starts it."""

from counterpoise.cli import main

main()
