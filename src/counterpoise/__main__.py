"""`python -m counterpoise`, as torchrun starts it."""

from counterpoise.commands.app import main

main()
