"""The command lines, one module a command, each with ``main(arguments)``."""
