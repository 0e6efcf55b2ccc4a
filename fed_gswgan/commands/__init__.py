"""The subcommands of ``fed-gswgan``, one a module: ``add_parser`` and the function it runs."""
