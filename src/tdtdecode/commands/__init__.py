"""The commands of the command line. Each is a module with HELP, add_arguments(parser) and run(arguments) -> status.

No heavy package is imported before a command runs, so that ``--help`` answers at once.
"""

from types import ModuleType

from . import (
    bench,
    convert,
    evaluate,
    explain,
    export,
    info,
    inspect,
    listen,
    optimize,
    pack,
    repair,
    serve,
    transcribe,
)

COMMANDS: dict[str, ModuleType] = {
    "transcribe": transcribe,
    "listen": listen,
    "serve": serve,
    "explain": explain,
    "evaluate": evaluate,
    "inspect": inspect,
    "repair": repair,
    "convert": convert,
    "optimize": optimize,
    "export": export,
    "pack": pack,
    "info": info,
    "bench": bench,
}
"""Name -> module, in the order in which the help lists them."""
