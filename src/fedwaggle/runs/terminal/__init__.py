"""A run in a terminal: ``watch`` follows it, ``screen`` draws it."""
