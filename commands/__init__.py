"""The commands, by whom they are for. They validate, call pipeline/, render and set exit codes; cli.py joins them."""
