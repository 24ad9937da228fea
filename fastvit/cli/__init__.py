"""The command `fastvit`: `main` finds the command and reports errors; each command is a function in a module."""
