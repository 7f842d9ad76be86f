"""The commands: one module each, imported when its command is given.

A command's module has two functions::

    configure(parser: argparse.ArgumentParser) -> None    arguments, and an epilog of examples
    run(args: argparse.Namespace) -> int                  the exit code; errors are raised

A CdcError ends as ``error: cause. remedy``, with exit code 2 for a ConfigError, else 1.
"""
